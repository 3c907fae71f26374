// Opening model files: which layout they have, what hyper-parameters they state, and where each tensor of
// docs/GGUF.md is.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "csm/config.h"
#include "files/weights.h"
#include "mimi/config.h"

namespace csm {

struct Checkpoint {
    std::string
        layout;  // "csm": our single file; "llama-csm": the three files of llama.cpp pull request #12648
    CsmConfig csm;
    MimiConfig mimi;
    std::shared_ptr<const TensorSource> tensors;
    std::shared_ptr<const GgufFile> main;  // holds the tokenizer

    // Throws FormatError.
    static Checkpoint open(const std::vector<std::string>& paths);
};

// The layout of the pull request's files.
Checkpoint open_llama_csm(const std::vector<std::shared_ptr<const GgufFile>>& files);

}  // namespace csm
