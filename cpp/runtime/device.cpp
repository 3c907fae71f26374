#include "runtime/device.h"

#include <algorithm>
#include <cstdio>
#include <thread>

#include "runtime/error.h"
#include "runtime/handles.h"

namespace csm {

namespace {

template <typename Function>
Function cpu_function(const char* name) {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (dev == nullptr)
        throw BackendError("no CPU backend is loaded; is the package complete? try `csm-ggml doctor`");
    auto* f = reinterpret_cast<Function>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), name));
    if (f == nullptr) throw BackendError(cat("the CPU backend lacks ", name));
    return f;
}

// How long an idle thread of ggml's pool spins before it sleeps, in ggml's units of 0..100. They are used
// only for graphs with products of ggml's own; between graphs spinning would only take time from others.
constexpr uint32_t kPolling = 0;

constexpr const char* kGenericCpu = "cpu-generic";

// ggml reports every repacked matrix on stderr, which belongs to the program that embeds us.
void log_warnings(ggml_log_level level, const char* text, void*) {
    static bool continues = false;  // CONT pieces belong to the line before
    if (level != GGML_LOG_LEVEL_CONT)
        continues = level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR;
    if (continues) std::fputs(text, stderr);
}

[[maybe_unused]] const bool log_is_set = [] {
    ggml_log_set(log_warnings, nullptr);
    return true;
}();

}  // namespace

void load_backends(const std::string& folder) {
#if defined(CSM_GGML_BACKEND_DL)
    ggml_backend_load_all_from_path(folder.c_str());
#else
    (void)folder;
#endif
}

std::vector<std::string> cpu_features() {
    auto* get = cpu_function<ggml_backend_get_features_t>("ggml_backend_get_features");
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    std::vector<std::string> names;
    for (auto* f = get(ggml_backend_dev_backend_reg(dev)); f->name != nullptr; ++f) {
        if (std::string(f->value) == "1") names.emplace_back(f->name);
    }
    return names;
}

std::shared_ptr<Device> Device::open(const std::string& name, int threads) {
    std::shared_ptr<Device> device(new Device());
    device->cpu_dev_ = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    auto* set_pool =
        cpu_function<void (*)(ggml_backend_t, ggml_threadpool_t)>("ggml_backend_cpu_set_threadpool");
    device->set_threads_ = cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads");
    auto* new_pool = cpu_function<ggml_threadpool_t (*)(ggml_threadpool_params*)>("ggml_threadpool_new");

    if (threads < 0) throw ArgumentError(cat("threads is ", threads, ", expected 0 (all cores) or more"));
    if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    device->threads_ = std::min(threads, GGML_MAX_N_THREADS);

    ggml_backend_dev_t gpu = nullptr;
    if (name == kGenericCpu) {
        gpu = device->cpu_dev_;
    } else if (name == "auto" || name == "gpu") {
        gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
        if (gpu == nullptr) gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
        if (gpu == nullptr && name == "gpu")
            throw BackendError("device 'gpu': this build or machine has none; use device 'cpu'");
    } else if (name != "cpu") {
        ggml_backend_dev_t dev = ggml_backend_dev_by_name(name.c_str());
        if (dev == nullptr) {
            std::string known;
            for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
                known += cat(i ? ", " : "", ggml_backend_dev_name(ggml_backend_dev_get(i)));
            }
            throw BackendError(cat("device '", name, "' is not known; there are: auto, cpu, gpu, ",
                                   kGenericCpu, ", ", known));
        }
        if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU) gpu = dev;
    }

    device->cpu_ = ggml_backend_dev_init(device->cpu_dev_, nullptr);
    if (device->cpu_ == nullptr) throw BackendError("the CPU backend could not be started");
    ggml_threadpool_params params = ggml_threadpool_params_default(device->threads_);
    params.poll = kPolling;
    device->pool_ = new_pool(&params);
    if (device->pool_ == nullptr) throw BackendError(cat("could not start ", device->threads_, " threads"));
    device->team_ = std::make_unique<ThreadTeam>(device->threads_);
    device->use_graph_threads(true);
    set_pool(device->cpu_, device->pool_);
    device->name_ = name == kGenericCpu ? name : ggml_backend_dev_name(gpu ? gpu : device->cpu_dev_);
    if (gpu != nullptr) {
        device->gpu_ = ggml_backend_dev_init(gpu, nullptr);
        if (device->gpu_ == nullptr)
            throw BackendError(cat("device '", device->name_, "' could not be started"));
        if (name == kGenericCpu) device->set_threads_(device->gpu_, device->threads_);
    } else {
        auto* extra = cpu_function<ggml_backend_dev_get_extra_bufts_t>("ggml_backend_dev_get_extra_bufts");
        for (auto* types = extra(device->cpu_dev_); types != nullptr && *types != nullptr; ++types) {
            device->extra_types_.push_back(*types);
        }
    }
    return device;
}

Device::~Device() {
    if (gpu_) ggml_backend_free(gpu_);
    if (cpu_) ggml_backend_free(cpu_);
    if (pool_) cpu_function<void (*)(ggml_threadpool_t)>("ggml_threadpool_free")(pool_);
}

void Device::use_graph_threads(bool all) {
    set_threads_(cpu_, all ? threads_ : 1);
}

ggml_backend_buffer_type_t Device::buffer_type() const {
    return ggml_backend_get_default_buffer_type(main_backend());
}

ggml_backend_buffer_type_t Device::repack_buffer_type(ggml_type type, int64_t ne0, int64_t ne1) const {
    // The backend is asked with a product of the very shape, as its answer depends on type, rows and CPU; a
    // matrix that is put there without a kernel crashes on load.
    if (!ggml_is_quantized(type)) return nullptr;
    // Repacked, these two add up four rows or more in another order than one: what an utterance says would
    // depend on its neighbours.
    if (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q2_K) return nullptr;
    for (ggml_backend_buffer_type_t buft : extra_types_) {
        ContextPtr ctx(ggml_init({4 * ggml_tensor_overhead(), nullptr, true}));
        ggml_tensor* w = ggml_new_tensor_2d(ctx.get(), type, ne0, ne1);
        ggml_tensor* x = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, ne0, 1);
        BufferPtr empty(ggml_backend_buft_alloc_buffer(buft, 0));
        if (!empty) continue;
        w->buffer = empty.get();
        if (ggml_backend_dev_supports_op(cpu_dev_, ggml_mul_mat(ctx.get(), w, x))) return buft;
    }
    return nullptr;
}

std::vector<ggml_backend_t> Device::backends() const {
    if (gpu_) return {gpu_, cpu_};
    return {cpu_};
}

}  // namespace csm
