// A loaded checkpoint: configuration and weights on one device. Immutable once loaded, so that engines and
// codec streams of several threads may share it.
#pragma once

#include <functional>

#include "checkpoint/checkpoint.h"
#include "csm/weights.h"
#include "mimi/weights.h"

namespace csm {

class Model {
 public:
    // between, if not empty, is called after each tensor that is read; what it throws ends the loading.
    Model(const std::vector<std::string>& files, const std::string& device, int threads,
          const std::function<void()>& between = {});

    const std::shared_ptr<Device>& device() const { return device_; }
    // The same device as the codec uses it: with threads and a lock of its own, so that sound is made while
    // an engine computes the next frame.
    const std::shared_ptr<Device>& codec_device() const { return codec_device_; }
    const Checkpoint& checkpoint() const { return checkpoint_; }
    const CsmConfig& csm() const { return checkpoint_.csm; }
    const MimiConfig& mimi() const { return checkpoint_.mimi; }
    const CsmWeights& csm_weights() const { return csm_weights_; }
    const std::shared_ptr<const MimiModel>& codec() const { return codec_; }
    size_t weight_bytes() const { return weights_->bytes(); }
    // What "auto" means for caches: F32 where the language model itself is, else F16.
    ggml_type default_kv_type() const;

 private:
    std::shared_ptr<Device> device_, codec_device_;
    Checkpoint checkpoint_;
    std::unique_ptr<Weights> weights_;
    CsmWeights csm_weights_;
    std::shared_ptr<const MimiModel> codec_;
};

}  // namespace csm
