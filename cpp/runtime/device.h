// A compute device of ggml and the way graphs run on it. Everything of the CPU backend (threads, thread pool,
// extra buffer types) is reached through ggml's registry, so that the same code serves a statically linked
// ggml and a wheel that picks one of several CPU libraries at run time.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "runtime/thread_team.h"

namespace csm {

// Loads backend libraries from a folder; without GGML_BACKEND_DL there is nothing to load.
void load_backends(const std::string& folder);

// Names of the features that the loaded CPU backend was built for and found.
std::vector<std::string> cpu_features();

class Device {
 public:
    // name: "auto" (a GPU if there is one, else the CPU), "cpu", "gpu", or a name that ggml lists; or
    // "cpu-generic", the CPU treated as a GPU is: graphs of ggml's operators only, given to the scheduler. It
    // serves to test what GPUs will run where there is none. threads: 0 = all cores.
    static std::shared_ptr<Device> open(const std::string& name, int threads);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    const std::string& name() const { return name_; }
    bool is_cpu() const { return gpu_ == nullptr; }
    int threads() const { return threads_; }

    // Where weights and state live.
    ggml_backend_buffer_type_t buffer_type() const;
    // The CPU's buffer type for repacked matrices, if it has a kernel for this shape and type whose
    // results do not depend on the number of rows; else null.
    ggml_backend_buffer_type_t repack_buffer_type(ggml_type type, int64_t ne0, int64_t ne1) const;

    // In order of preference; the CPU is last.
    std::vector<ggml_backend_t> backends() const;
    ggml_backend_t main_backend() const { return gpu_ ? gpu_ : cpu_; }

    // Workers of our own nodes.
    ThreadTeam& team() { return *team_; }
    // How many of ggml's threads run the CPU graphs that follow: all of them, or only the caller's.
    void use_graph_threads(bool all);

    // Graphs of one device run one at a time, whoever asks.
    std::mutex& mutex() { return mutex_; }

 private:
    Device() = default;

    std::string name_;
    int threads_ = 1;
    ggml_backend_dev_t cpu_dev_ = nullptr;
    ggml_backend_t cpu_ = nullptr;
    ggml_backend_t gpu_ = nullptr;
    ggml_threadpool_t pool_ = nullptr;
    ggml_backend_set_n_threads_t set_threads_ = nullptr;
    std::unique_ptr<ThreadTeam> team_;
    std::vector<ggml_backend_buffer_type_t> extra_types_;
    std::mutex mutex_;
};

}  // namespace csm
