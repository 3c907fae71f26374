#include "runtime/device.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>

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

using FreePool = void (*)(ggml_threadpool_t);

constexpr const char* kGenericCpu = "cpu-generic";

// GPUs in the order in which they are numbered: those with memory of their own come first. What a driver
// runs on the CPU (Mesa's lavapipe, which a user has to ask ggml for) counts as one as well.
std::vector<ggml_backend_dev_t> gpus() {
    std::vector<ggml_backend_dev_t> out;
    const auto add = [&](const auto& wanted) {
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            ggml_backend_dev_t dev = ggml_backend_dev_get(i);
            if (wanted(ggml_backend_dev_type(dev))) out.push_back(dev);
        }
    };
    add([](auto type) { return type == GGML_BACKEND_DEVICE_TYPE_GPU; });
    add([](auto type) { return type == GGML_BACKEND_DEVICE_TYPE_IGPU; });
    return out;
}

// "gpu", which is the first one, or "gpu:N".
bool is_gpu(const std::string& name, size_t& number) {
    constexpr size_t kMaxDigits = 4;
    if (name == "gpu") return true;
    const std::string digits = name.rfind("gpu:", 0) == 0 ? name.substr(4) : "";
    if (digits.empty() || digits.size() > kMaxDigits ||
        digits.find_first_not_of("0123456789") != std::string::npos)
        return false;
    number = std::stoul(digits);
    return true;
}

}  // namespace

void load_backends(const std::string& folder) {
#if defined(CSM_GGML_BACKEND_DL)
    // ggml lists the devices of a library once for each time that it is loaded.
    static std::mutex mutex;
    static std::set<std::string> loaded;
    const std::lock_guard<std::mutex> lock(mutex);
    if (loaded.insert(folder).second) ggml_backend_load_all_from_path(folder.c_str());
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

Device::Choice Device::choose(const std::string& name, int threads) {
    if (threads < 0 || threads > GGML_MAX_N_THREADS)
        throw ArgumentError(
            cat("threads is ", threads, ", expected 1 to ", GGML_MAX_N_THREADS, ", or 0 for all cores"));
    if (threads == 0)
        threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, GGML_MAX_N_THREADS);

    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), gpu = nullptr;
    if (cpu == nullptr)
        throw BackendError("no CPU backend is loaded; is the package complete? try `csm-ggml doctor`");
    if (name == kGenericCpu) return {cpu, name, threads};
    const std::vector<ggml_backend_dev_t> all = gpus();
    size_t number = 0;
    if (name == "auto") {
        if (!all.empty()) gpu = all.front();
    } else if (is_gpu(name, number)) {
        if (all.empty())
            throw BackendError(
                cat("device '", name, "': this build or machine has no GPU; use device 'cpu'"));
        if (number >= all.size())
            throw BackendError(cat("device '", name, "': there ",
                                   all.size() == 1
                                       ? std::string("is one GPU, gpu:0")
                                       : cat("are ", all.size(), " GPUs, gpu:0 to gpu:", all.size() - 1),
                                   "; `csm-ggml doctor` lists them"));
        gpu = all[number];
    } else if (name != "cpu") {
        ggml_backend_dev_t dev = ggml_backend_dev_by_name(name.c_str());
        if (dev == nullptr) {
            std::string known;
            for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
                known += cat(i ? ", " : "", ggml_backend_dev_name(ggml_backend_dev_get(i)));
            }
            throw BackendError(cat("device '", name, "' is not known; there are: auto, cpu, gpu, gpu:N, ",
                                   kGenericCpu, ", ", known));
        }
        if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU) gpu = dev;
    }
    return {gpu, ggml_backend_dev_name(gpu ? gpu : cpu), threads};
}

std::shared_ptr<Device> Device::open(const std::string& name, int threads) {
    return open(choose(name, threads));
}

std::shared_ptr<Device> Device::shared(const std::string& name, int threads, Purpose purpose) {
    struct Open {
        int process = current_process();
        std::mutex mutex;
        std::map<std::tuple<std::string, int, Purpose>, std::weak_ptr<Device>> devices;
    };
    // Never freed: models may outlive static objects. After a fork the mutex may be held by a thread that is
    // no more, and the devices are of no use.
    static std::atomic<Open*> open_devices{new Open};
    Open* known = open_devices.load();
    if (known->process != current_process()) {
        auto* fresh = new Open;
        if (open_devices.compare_exchange_strong(known, fresh)) {
            known = fresh;
        } else {
            delete fresh;
        }
    }
    const Choice choice = choose(name, threads);
    const std::lock_guard<std::mutex> lock(known->mutex);
    std::weak_ptr<Device>& place = known->devices[{choice.name, choice.threads, purpose}];
    std::shared_ptr<Device> device = place.lock();
    if (!device) place = device = open(choice);
    return device;
}

std::shared_ptr<Device> Device::open(const Choice& choice) {
    // in a child of the process that opened it, a device is left alone, locks and all: nothing of it would
    // ever answer
    std::shared_ptr<Device> device(new Device(), [](Device* d) {
        if (d->process_ == current_process()) delete d;
    });
    device->name_ = choice.name;
    device->threads_ = choice.threads;
    device->cpu_dev_ = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    device->set_threads_ = cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads");
    device->team_ = std::make_unique<ThreadTeam>(device->threads_);
    device->cpu_ = ggml_backend_dev_init(device->cpu_dev_, nullptr);
    if (device->cpu_ == nullptr) throw BackendError("the CPU backend could not be started");
    if (choice.gpu != nullptr) {
        device->gpu_ = ggml_backend_dev_init(choice.gpu, nullptr);
        if (device->gpu_ == nullptr)
            throw BackendError(cat("device '", device->name_, "' could not be started"));
        device->gpu_is_cpu_ = choice.gpu == device->cpu_dev_;
        device->alignment_ = ggml_backend_buft_get_alignment(device->buffer_type());
    } else {
        auto* extra = cpu_function<ggml_backend_dev_get_extra_bufts_t>("ggml_backend_dev_get_extra_bufts");
        for (auto* types = extra(device->cpu_dev_); types != nullptr && *types != nullptr; ++types) {
            device->extra_types_.push_back(*types);
        }
    }
    device->set_pool(1);
    return device;
}

Device::~Device() {
    if (gpu_) ggml_backend_free(gpu_);
    if (cpu_) ggml_backend_free(cpu_);
    if (pool_) cpu_function<FreePool>("ggml_threadpool_free")(pool_);
}

void Device::check_process() const {
    if (process_ != current_process())
        throw BackendError(
            "the model was loaded before a fork of the process; load it in the child, or start the child "
            "with multiprocessing's 'spawn'");
}

void rethrow_of_device(const std::string& name) {
    try {
        throw;
    } catch (const BackendError&) {
        throw;
    } catch (const FormatError&) {
        throw;
    } catch (const ArgumentError&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw BackendError(cat("out of memory on device '", name, "'"));
    } catch (const std::exception& e) {
        throw BackendError(cat("device '", name, "' failed: ", e.what()));
    }
}

// Gives the CPU backends so many of ggml's threads, the caller's included.
void Device::set_pool(int threads) {
    check_threads(threads - 1);  // ggml would abort
    ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    params.poll = kPolling;
    auto* pool = cpu_function<ggml_threadpool_t (*)(ggml_threadpool_params*)>("ggml_threadpool_new")(&params);
    if (pool == nullptr) throw BackendError(cat("could not start ", threads, " threads"));
    auto* set = cpu_function<void (*)(ggml_backend_t, ggml_threadpool_t)>("ggml_backend_cpu_set_threadpool");
    set(cpu_, pool);
    if (gpu_is_cpu_) set(gpu_, pool);
    if (pool_) cpu_function<FreePool>("ggml_threadpool_free")(pool_);
    pool_ = pool;
    pool_threads_ = threads;
}

void Device::use_graph_threads(bool all) {
    const int threads = all ? threads_ : 1;
    if (threads > pool_threads_) set_pool(threads);
    set_threads_(cpu_, threads);
    if (gpu_is_cpu_) set_threads_(gpu_, threads);
}

ggml_backend_buffer_type_t Device::buffer_type() const {
    return ggml_backend_get_default_buffer_type(main_backend());
}

ggml_backend_buffer_type_t Device::host_buffer_type() const {
    return ggml_backend_get_default_buffer_type(cpu_);
}

bool Device::supports(const ggml_tensor* node) const {
    return ggml_backend_supports_op(main_backend(), node);
}

ggml_backend_buffer_type_t Device::repack_buffer_type(ggml_type type, int64_t ne0, int64_t ne1) const {
    // The backend is asked with a product of the very shape, as its answer depends on type, rows and CPU; a
    // matrix that is put there without a kernel crashes on load.
    if (!ggml_is_quantized(type)) return nullptr;
    // Repacked, these two add up four rows or more in another order than one: what an utterance says would
    // depend on its neighbours.
    if (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q2_K) return nullptr;
    for (ggml_backend_buffer_type_t buft : extra_types_) {
        const Context ctx(4 * ggml_tensor_overhead());
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
