#include "nn/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

namespace csm {

namespace {

int32_t argmax(const float* logits, int n) {
    int best = 0;
    for (int i = 1; i < n; ++i) {
        if (logits[i] > logits[best] || std::isnan(logits[best])) best = i;
    }
    return best;
}

// A code with its logit as a number that is larger for the one that comes first. The bits of floats are in
// order once negative ones are turned round; what is added makes the two zeros one.
uint64_t candidate(float logit, int code) {
    const float value = std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit + 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits ^= (bits >> 31) != 0 ? 0xffffffffu : 0x80000000u;
    return uint64_t{bits} << 32 | ~static_cast<uint32_t>(code);
}

double logit_of(uint64_t candidate) {
    auto bits = static_cast<uint32_t>(candidate >> 32);
    bits ^= (bits >> 31) != 0 ? 0x80000000u : 0xffffffffu;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<double>(value);
}

int32_t code_of(uint64_t candidate) {
    return static_cast<int32_t>(~static_cast<uint32_t>(candidate));
}

// At most the k-th largest of n logits: as many groups have a largest one each.
float bound_of_top(const float* logits, int n, int k) {
    float least = std::numeric_limits<float>::infinity();
    const int group = n / k;
    for (int g = 0; g < k; ++g) {
        float largest = -std::numeric_limits<float>::infinity();
        for (int i = g * group; i < (g + 1) * group; ++i) {
            if (logits[i] > largest) largest = logits[i];
        }
        least = std::min(least, largest);
    }
    return least;
}

}  // namespace

int32_t sample_code(const float* logits, int n, const SamplerSettings& s, float u, SamplerScratch& scratch) {
    if (!(s.temperature > 0.0f) || s.top_k == 1) return argmax(logits, n);
    auto& [order, mass] = scratch;
    order.resize(static_cast<size_t>(n));
    const int k = s.top_k > 0 && s.top_k < n ? s.top_k : n;
    // Most codes are below all that are kept, and need no sorting.
    const float bound = k < n ? bound_of_top(logits, n, k) : -std::numeric_limits<float>::infinity();
    auto last = order.begin();
    for (int i = 0; i < n; ++i) {
        *last = candidate(logits[i], i);
        if (!(logits[i] < bound)) ++last;
    }
    const auto kept = order.begin() + k;
    if (kept != last) std::nth_element(order.begin(), kept, last, std::greater<>());
    std::sort(order.begin(), kept, std::greater<>());

    const double top = logit_of(order[0]);
    if (std::isinf(top)) return code_of(order[0]);

    // cumulated, unnormalised softmax mass in the order of the candidates; the difference is taken before the
    // division, since a logit over a tiny temperature is too large for a float
    mass.resize(static_cast<size_t>(k));
    const auto temperature = static_cast<double>(s.temperature);
    double total = 0.0;
    for (size_t i = 0; i < mass.size(); ++i) {
        total += std::exp((logit_of(order[i]) - top) / temperature);
        mass[i] = total;
    }
    auto end = mass.end();
    if (s.top_p < 1.0f) {
        const auto reached = std::lower_bound(mass.begin(), end, static_cast<double>(s.top_p) * total);
        if (reached != end) end = reached + 1;
    }
    const auto drawn = std::upper_bound(mass.begin(), end, static_cast<double>(u) * *(end - 1));
    // u * mass may round up to the whole mass
    return code_of(order[static_cast<size_t>(std::min(drawn, end - 1) - mass.begin())]);
}

void pack_settings(const SamplerSettings& settings, int codes, float* out, size_t stride) {
    // Below this, logits that a float tells apart are no rivals.
    constexpr float kLeastTemperature = 1e-6f;
    const bool greedy = !(settings.temperature > kLeastTemperature), part = settings.top_p < 1.0f;
    const int kept = greedy ? 1 : settings.top_k == 0 ? codes : std::min(settings.top_k, codes);
    const auto set = [&](SettingsRow row, float value) { out[static_cast<size_t>(row) * stride] = value; };
    set(kTemperature, settings.temperature);
    set(kTopP, settings.top_p);
    set(kTopK, static_cast<float>(settings.top_k));
    set(kInverseTemperature, greedy ? 1.0f : 1.0f / settings.temperature);
    set(kKept, static_cast<float>(kept) * rank_step(codes));
    set(kLimit, part ? std::nextafter(settings.top_p, 0.0f) : 2.0f);
    set(kPart, part ? 1.0f : 0.0f);
    set(kWhole, part ? 0.0f : 1.0f);
}

float rank_step(int64_t codes) {
    float step = 1.0f;
    while (step * static_cast<float>(codes) > 0.5f) step *= 0.5f;
    return step;
}

SamplerInputs::SamplerInputs(InputBlock& block, TensorPool& pool, const Device& device, int codes,
                             int codebooks, int batch)
    : settings(block.columns(GGML_TYPE_F32, batch, 2 * kSettingsWidth)),
      uniforms(block.columns(GGML_TYPE_F32, batch, codebooks)),
      forced(block.columns(GGML_TYPE_I32, batch, codebooks)),
      ranks(device.runs_own_nodes() ? nullptr : ggml_new_tensor_2d(pool.ctx(), GGML_TYPE_F32, codes, batch)) {
}

void SamplerInputs::upload_constants() const {
    if (ranks == nullptr) return;
    const float step = rank_step(ranks->ne[0]);
    std::vector<float> values;
    for (int64_t b = 0; b < ranks->ne[1]; ++b) {
        for (int64_t rank = 0; rank < ranks->ne[0]; ++rank)
            values.push_back(-step * static_cast<float>(rank));
    }
    upload(ranks, values.data(), ggml_nbytes(ranks));
}

namespace {

template <typename T>
T* column(const ggml_tensor* t, int64_t i) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i) * t->nb[1]);
}

struct Node {
    ThreadTeam* team;
    int codebook;
};

void run_sampler(ggml_tensor* dst, int ith, int nth, void* userdata) {
    const auto [team, codebook] = *static_cast<const Node*>(userdata);
    const ggml_tensor* logits = dst->src[0];
    const auto work = [&, codebook = codebook](int64_t first, int64_t last) {
        thread_local SamplerScratch scratch;
        for (int64_t b = first; b < last; ++b) {
            auto* out = static_cast<int32_t*>(dst->data) + b;
            const int32_t forced = column<int32_t>(dst->src[3], codebook)[b];
            if (forced >= 0) {
                *out = forced;
                continue;
            }
            const auto setting = [&, codebook = codebook](SettingsRow row) {
                return column<float>(dst->src[1], codebook == 0 ? row : kSettingsWidth + row)[b];
            };
            const SamplerSettings settings{setting(kTemperature), setting(kTopP),
                                           static_cast<int32_t>(setting(kTopK))};
            *out = sample_code(column<float>(logits, b), static_cast<int>(logits->ne[0]), settings,
                               column<float>(dst->src[2], codebook)[b], scratch);
        }
    };
    divide(*team, logits->ne[1], ith, nth, work);
}

}  // namespace

Sampler::Sampler(Graph& graph, const SamplerInputs& inputs, int batch, const SamplerNeeds& needs)
    : graph_(graph), inputs_(inputs), batch_(batch), needs_(needs) {
    if (inputs.ranks != nullptr) compose_shared();
}

ggml_tensor* Sampler::draw(ggml_tensor* logits, int codebook) const {
    if (inputs_.ranks != nullptr) return composed(logits, codebook);
    ggml_tensor* args[] = {logits, inputs_.settings, inputs_.uniforms, inputs_.forced};
    return ggml_custom_4d(graph_.ctx(), GGML_TYPE_I32, logits->ne[1], 1, 1, 1, args, 4, run_sampler,
                          GGML_N_TASKS_MAX, graph_.keep<Node>(Node{&graph_.device().team(), codebook}));
}

}  // namespace csm
