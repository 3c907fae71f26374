#include "mimi/config.h"

#include <limits>

#include "runtime/error.h"

namespace csm {

namespace {

// Bounds far above any codec; within them every product of sizes that the graphs form stays inside its
// integer type, and a file of damaged numbers asks for no memory that its own tensors do not account for.
constexpr int kMaxChannels = 1 << 16;
constexpr int kMaxRatios = 8;
constexpr int kMaxRatio = 64;
constexpr int kMaxKernel = 64;
constexpr int kMaxResidualLayers = 8;
constexpr int kMaxDilation = 1024;
constexpr int kMaxFrame = 1 << 16;
constexpr int kMaxWindow = 1 << 13;
constexpr int kMaxLayers = 128;
constexpr int kMaxCodebooks = 256;

constexpr const char* kTransformer = "mimi.transformer.";

}  // namespace

MimiConfig::MimiConfig() {
    transformer.layers = 8;
    transformer.width = hidden;
    transformer.heads = 8;
    transformer.kv_heads = 8;
    transformer.head_dim = 64;
    transformer.ffn = 2048;
    transformer.norm_eps = 1e-5f;
    transformer.rope_base = 10000.0f;
    transformer.codec = true;
}

MimiConfig MimiConfig::read(const GgufFile& file) {
    MimiConfig c;
    c.sample_rate = file.size("mimi.sample_rate", 1, 1 << 20);
    c.hidden = file.size("mimi.hidden_size", 1, kMaxChannels);
    c.num_filters = file.size("mimi.num_filters", 1, kMaxChannels);
    c.ratios.clear();
    for (const uint32_t ratio : file.u32_array("mimi.upsampling_ratios")) {
        c.ratios.push_back(static_cast<int>(std::min<uint32_t>(ratio, std::numeric_limits<int>::max())));
    }
    c.kernel = file.size("mimi.kernel_size", 1, kMaxKernel);
    c.last_kernel = file.size("mimi.last_kernel_size", 1, kMaxKernel);
    c.residual_kernel = file.size("mimi.residual_kernel_size", 1, kMaxKernel);
    c.residual_layers = file.size("mimi.num_residual_layers", 0, kMaxResidualLayers);
    c.dilation_growth = file.size("mimi.dilation_growth_rate", 1, kMaxDilation);
    c.compress = file.size("mimi.compress", 1, kMaxChannels);
    c.resample_stride = file.size("mimi.resample_stride", 1, kMaxRatio);
    const std::string t = kTransformer;
    c.transformer.layers = file.size(t + "block_count", 1, kMaxLayers);
    c.transformer.width = c.hidden;
    c.transformer.heads = file.size(t + "attention.head_count", 1, kMaxChannels);
    c.transformer.kv_heads = file.size(t + "attention.head_count_kv", 1, kMaxChannels);
    c.transformer.head_dim = file.size(t + "attention.head_dim", 1, kMaxChannels);
    c.transformer.ffn = file.size(t + "feed_forward_length", 1, kMaxChannels);
    c.transformer.norm_eps = file.f32(t + "attention.layer_norm_epsilon");
    c.transformer.rope_base = file.f32(t + "rope.freq_base");
    c.window = file.size(t + "attention.sliding_window", 1, kMaxWindow);
    c.codebook_size = file.size("mimi.codebook_size", 1, 1 << 20);
    c.codebook_dim = file.size("mimi.codebook_dim", 1, kMaxChannels);
    c.codebooks = file.size("csm.codebooks", 2, kMaxCodebooks);
    c.semantic_codebooks = file.size("mimi.semantic_codebooks", 1, kMaxCodebooks);
    c.validate(file.path());
    return c;
}

void MimiConfig::validate(const std::string& where) const {
    const auto fail = [&](const std::string& why) { return FormatError(cat(where, ": mimi: ", why)); };
    struct Size {
        const char* name;
        int value, high;
    };
    const Size sizes[] = {{"sample_rate", sample_rate, 1 << 20},
                          {"hidden_size", hidden, kMaxChannels},
                          {"num_filters", num_filters, kMaxChannels},
                          {"kernel_size", kernel, kMaxKernel},
                          {"last_kernel_size", last_kernel, kMaxKernel},
                          {"residual_kernel_size", residual_kernel, kMaxKernel},
                          {"dilation_growth_rate", dilation_growth, kMaxDilation},
                          {"compress", compress, kMaxChannels},
                          {"resample_stride", resample_stride, kMaxRatio},
                          {"sliding_window", window, kMaxWindow},
                          {"codebook_size", codebook_size, 1 << 20},
                          {"codebook_dim", codebook_dim, kMaxChannels},
                          {"codebooks", codebooks, kMaxCodebooks},
                          {"semantic_codebooks", semantic_codebooks, kMaxCodebooks},
                          {"transformer layers", transformer.layers, kMaxLayers},
                          {"transformer feed-forward width", transformer.ffn, kMaxChannels}};
    for (const Size& size : sizes) {
        if (size.value < 1 || size.value > size.high)
            throw fail(cat(size.name, " is ", size.value, ", expected 1 to ", size.high));
    }
    if (residual_layers < 0 || residual_layers > kMaxResidualLayers)
        throw fail(cat("num_residual_layers is ", residual_layers, ", expected 0 to ", kMaxResidualLayers));
    transformer.validate(where, "mimi.transformer");
    if (ratios.empty() || ratios.size() > kMaxRatios) {
        throw fail(cat(ratios.size(), " upsampling ratios, expected 1 to ", kMaxRatios));
    }
    int64_t frame = resample_stride;
    for (const int ratio : ratios) {
        if (ratio < 1 || ratio > kMaxRatio)
            throw fail(cat("an upsampling ratio is ", ratio, ", expected 1 to ", kMaxRatio));
        frame *= ratio;
        if (frame > kMaxFrame) throw fail(cat("a frame has more than ", kMaxFrame, " samples"));
    }
    if (num_filters > (kMaxChannels >> ratios.size())) {
        throw fail(
            cat(num_filters, " filters, doubled ", ratios.size(), " times, are more than ", kMaxChannels));
    }
    if (compress > num_filters)
        throw fail(cat("residual blocks narrow ", num_filters, " channels by ", compress));
    int64_t dilation = 1;
    for (int i = 1; i < residual_layers; ++i) {
        dilation *= dilation_growth;
        if (dilation > kMaxDilation) throw fail(cat("a dilation is above ", kMaxDilation));
    }
    if (semantic_codebooks >= codebooks) {
        throw fail(cat(semantic_codebooks, " of ", codebooks,
                       " codebooks are semantic, expected at least one acoustic"));
    }
}

int MimiConfig::latent_size() const {
    int size = 1;
    for (const int ratio : ratios) size *= ratio;
    return size;
}

int MimiConfig::dilation(int residual_layer) const {
    int dilation = 1;
    for (int i = 0; i < residual_layer; ++i) dilation *= dilation_growth;
    return dilation;
}

}  // namespace csm
