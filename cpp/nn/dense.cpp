#include "nn/dense.h"

#include "nn/gemm.h"

namespace csm {

bool use_gemm(const Device& device) {
    return kHaveGemm && device.is_cpu();
}

Dense Dense::request(Weights& weights, const std::string& name, std::vector<int64_t> file_ne, int64_t in,
                     int64_t out, Weights::Transform to_rows) {
    Dense dense;
    dense.in = in;
    dense.out = out;
    dense.packed = use_gemm(weights.device());
    if (!dense.packed) {
        dense.weight = weights.f32(name, std::move(file_ne), {in, out}, std::move(to_rows));
        return dense;
    }
    dense.weight =
        weights.f32(name, std::move(file_ne), {gemm_packed_size(in, out)}, [=](const float* from, float* to) {
            if (!to_rows) {
                gemm_pack(from, in, out, to);
                return;
            }
            std::vector<float> rows(static_cast<size_t>(in * out));
            to_rows(from, rows.data());
            gemm_pack(rows.data(), in, out, to);
        });
    return dense;
}

namespace {

template <Activation activation>
void run_gemm(ggml_tensor* dst, int ith, int nth, void*) {
    const ggml_tensor* x = dst->src[0];
    const auto data = [](const ggml_tensor* t) { return t ? static_cast<const float*>(t->data) : nullptr; };
    Gemm job;
    job.x = data(x);
    job.x_step = static_cast<int64_t>(x->nb[1] / sizeof(float));
    job.rows = dst->ne[1];
    job.in = x->ne[0];
    job.out = dst->ne[0];
    job.weights = data(dst->src[1]);
    job.bias = data(dst->src[2]);
    job.residual = data(dst->src[3]);
    job.y = static_cast<float*>(dst->data);
    job.elu = activation == Activation::elu;
    gemm_kernels().front().gemm(job, ith, nth);
}

}  // namespace

ggml_tensor* build_dense(ggml_context* ctx, const Dense& dense, ggml_tensor* x, const Epilogue& epilogue) {
    if (dense.packed) {
        ggml_tensor* args[] = {x, dense.weight, epilogue.bias, epilogue.residual};
        return ggml_custom_4d(
            ctx, GGML_TYPE_F32, dense.out, x->ne[1], 1, 1, args, 4,
            epilogue.activation == Activation::elu ? run_gemm<Activation::elu> : run_gemm<Activation::none>,
            GGML_N_TASKS_MAX, nullptr);
    }
    ggml_tensor* y = ggml_mul_mat(ctx, dense.weight, x);
    if (epilogue.bias != nullptr) y = ggml_add(ctx, y, epilogue.bias);
    if (epilogue.residual != nullptr) y = ggml_add(ctx, y, epilogue.residual);
    return epilogue.activation == Activation::elu ? ggml_elu(ctx, y) : y;
}

}  // namespace csm
