#include "checkpoint/model.h"

namespace csm {

Model::Model(const std::vector<std::string>& files, const std::string& device, int threads,
             const std::function<void()>& between)
    : checkpoint_(Checkpoint::open(files)) {
    device_ = Device::shared(device, threads, Device::Purpose::language_model);
    codec_device_ = Device::shared(device, threads, Device::Purpose::codec);
    weights_ = std::make_unique<Weights>(device_, checkpoint_.tensors,
                                         CsmWeights::max_tensors(csm()) + MimiWeights::max_tensors(mimi()));
    csm_weights_ = CsmWeights::request(*weights_, csm());
    codec_ = std::make_shared<MimiModel>(
        MimiModel{mimi(), MimiWeights::request(*weights_, mimi(), MimiWeights::encoder_present(*weights_))});
    weights_->load(between);
    checkpoint_.tensors.reset();
    checkpoint_.main->close();
}

ggml_type Model::default_kv_type() const {
    return csm_weights_.backbone.layers.front().qkv.tensor->type == GGML_TYPE_F32 ? GGML_TYPE_F32
                                                                                  : GGML_TYPE_F16;
}

}  // namespace csm
