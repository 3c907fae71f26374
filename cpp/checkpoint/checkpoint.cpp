#include "checkpoint/checkpoint.h"

#include <algorithm>

#include "runtime/error.h"

namespace csm {

namespace {

// Our own file: names are the engine's names.
class NativeLayout : public TensorSource {
 public:
    explicit NativeLayout(std::shared_ptr<const GgufFile> file) : file_(std::move(file)) {}

    TensorSlice find(const std::string& name) const override {
        const auto* tensor = file_->find(name);
        if (tensor == nullptr) return {};
        return {file_, tensor, 0, {tensor->ne.begin(), tensor->ne.end()}};
    }
    std::string describe(const std::string& name) const override {
        return cat(file_->path(), ": tensor '", name, "'");
    }

 private:
    std::shared_ptr<const GgufFile> file_;
};

}  // namespace

Checkpoint Checkpoint::open(const std::vector<std::string>& paths) {
    if (paths.empty()) throw ArgumentError("no model file was given");
    std::vector<std::shared_ptr<const GgufFile>> files;
    for (const auto& path : paths) files.push_back(std::make_shared<GgufFile>(path));

    Checkpoint out;
    if (files.size() == 1) {
        const auto& file = files.front();
        const std::string architecture = file->str("general.architecture");
        if (architecture != "csm") {
            throw FormatError(cat(file->path(), ": general.architecture is '", architecture,
                                  "', expected 'csm'; convert other checkpoints with `csm-ggml convert`"));
        }
        out.layout = "csm";
        out.csm = CsmConfig::read(*file);
        out.mimi = MimiConfig::read(*file);
        out.tensors = std::make_shared<NativeLayout>(file);
        out.main = file;
    } else {
        out = open_llama_csm(files);
    }
    if (out.mimi.codebooks < out.csm.codebooks) {
        throw FormatError(cat(out.main->path(), ": the codec has ", out.mimi.codebooks,
                              " codebooks, the language model speaks ", out.csm.codebooks));
    }
    out.csm.codes = std::min(out.csm.audio_vocab, out.mimi.codebook_size);
    return out;
}

}  // namespace csm
