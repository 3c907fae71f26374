// Hyper-parameters of the Mimi codec; docs/GGUF.md names the keys. The defaults are Mimi's own.
#pragma once

#include <string>
#include <vector>

#include "files/gguf_file.h"
#include "nn/transformer.h"

namespace csm {

struct MimiConfig {
    int sample_rate = 24000;                 // Hz
    int hidden = 512;                        // width of a latent
    int num_filters = 64;                    // channels of the outermost convolutions
    std::vector<int> ratios = {8, 6, 5, 4};  // upsampling, in the order of the decoder
    int kernel = 7;                          // of the first convolution of encoder and decoder
    int last_kernel = 3;
    int residual_kernel = 3;
    int residual_layers = 1;        // per ratio
    int dilation_growth = 2;        // from one residual layer to the next
    int compress = 2;               // by how much a residual block narrows
    int resample_stride = 2;        // latents per frame
    TransformerConfig transformer;  // of encoder and decoder alike
    int window = 250;               // latents that attention sees, the present one included
    int codebook_size = 2048;
    int codebook_dim = 256;
    int codebooks = 32;  // semantic and acoustic
    int semantic_codebooks = 1;

    MimiConfig();

    // Reads and validates; throws FormatError.
    static MimiConfig read(const GgufFile& file);
    // Checks what the graphs rely on, wherever the numbers come from; `where` names the file in the message.
    void validate(const std::string& where) const;

    int acoustic_codebooks() const { return codebooks - semantic_codebooks; }
    int latent_size() const;                                            // samples per latent
    int frame_size() const { return latent_size() * resample_stride; }  // samples per frame
    // Channels at the resolution that `stage` upsampling stages of the decoder lead to.
    int channels(size_t stage) const { return num_filters << (ratios.size() - stage); }
    int dilation(int residual_layer) const;
};

}  // namespace csm
