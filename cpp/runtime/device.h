// A compute device of ggml and the way graphs run on it. Everything of the CPU backend (threads, thread pool,
// extra buffer types) is reached through ggml's registry, so that the same code serves a statically linked
// ggml and a wheel that picks one of several CPU libraries at run time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "runtime/fair_mutex.h"
#include "runtime/process.h"
#include "runtime/thread_team.h"

namespace csm {

// Loads backend libraries from a folder; without GGML_BACKEND_DL there is nothing to load.
void load_backends(const std::string& folder);

// Names of the features that the loaded CPU backend was built for and found.
std::vector<std::string> cpu_features();

// To be called where an exception is being handled: what a driver has thrown becomes a BackendError with the
// device's name.
[[noreturn]] void rethrow_of_device(const std::string& name);

class Device {
 public:
    // name: "auto" (a GPU if there is one, else the CPU), "cpu", "gpu" (the first GPU), "gpu:1" (the
    // second), or a name that ggml lists; or "cpu-generic", the CPU treated as a GPU is: graphs of ggml's
    // operators only, given to the scheduler. It serves to test what GPUs will run where there is none.
    // threads: 0 = all cores. Throws ArgumentError for threads, BackendError for devices and threads that
    // there are not.
    static std::shared_ptr<Device> open(const std::string& name, int threads);
    // The same, but models that ask for one device, threads and purpose share it, its threads and its lock.
    // Graphs of one purpose run one after another, those of different purposes side by side.
    enum class Purpose { language_model, codec };
    static std::shared_ptr<Device> shared(const std::string& name, int threads, Purpose purpose);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    const std::string& name() const { return name_; }
    // Whether graphs may hold nodes of our own: they run on the CPU then, one node after the other. Graphs of
    // other devices are made of ggml's operators and are given to its scheduler.
    bool runs_own_nodes() const { return gpu_ == nullptr; }
    int threads() const { return threads_; }

    // Where weights and state live.
    ggml_backend_buffer_type_t buffer_type() const;
    // The CPU's memory, for weights that the device cannot hold or use.
    ggml_backend_buffer_type_t host_buffer_type() const;
    // Addresses that nodes use are multiples of this many bytes; 1 where nodes are our own.
    size_t alignment() const { return alignment_; }
    // Whether the device can run a node, with all it reads and writes where the device has its memory; of a
    // tensor without an operation, whether it can hold it.
    bool supports(const ggml_tensor* node) const;
    // The CPU's buffer type for repacked matrices, if it has a kernel for this shape and type whose
    // results do not depend on the number of rows; else null.
    ggml_backend_buffer_type_t repack_buffer_type(ggml_type type, int64_t ne0, int64_t ne1) const;

    // In order of preference; the CPU is last.
    std::vector<ggml_backend_t> backends() const;
    ggml_backend_t main_backend() const { return gpu_ ? gpu_ : cpu_; }

    // Workers of our own nodes.
    ThreadTeam& team() { return *team_; }
    // How many of ggml's threads run the CPU graphs that follow: all of them, or only the caller's. They are
    // started when they are first needed. Throws BackendError if the system does not give them.
    void use_graph_threads(bool all);

    // Graphs of one device run one at a time, whoever asks, in the order in which they came.
    FairMutex& mutex() { return mutex_; }

    // Throws BackendError in another process than the one that opened the device: its threads, and what a
    // GPU's driver knows, did not come along.
    void check_process() const;
    bool is_ours() const { return process_ == current_process(); }

    // Calls what talks to the device's driver: what that throws becomes a BackendError with the device's
    // name.
    template <typename Function>
    void guard(const Function& function) const {
        try {
            function();
        } catch (...) {
            rethrow_of_device(name_);
        }
    }

 private:
    struct Choice {
        ggml_backend_dev_t gpu;  // null: the CPU
        std::string name;        // as Device::name() says it
        int threads;
    };
    static Choice choose(const std::string& name, int threads);
    static std::shared_ptr<Device> open(const Choice& choice);
    Device() = default;
    void set_pool(int threads);

    std::string name_;
    int threads_ = 1;
    ggml_backend_dev_t cpu_dev_ = nullptr;
    ggml_backend_t cpu_ = nullptr;
    ggml_backend_t gpu_ = nullptr;
    bool gpu_is_cpu_ = false;  // "cpu-generic"
    size_t alignment_ = 1;
    ggml_threadpool_t pool_ = nullptr;
    int pool_threads_ = 0;
    ggml_backend_set_n_threads_t set_threads_ = nullptr;
    std::unique_ptr<ThreadTeam> team_;
    std::vector<ggml_backend_buffer_type_t> extra_types_;
    FairMutex mutex_;
    int process_ = current_process();
};

}  // namespace csm
