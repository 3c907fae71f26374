#include "runtime/log.h"

#include <cstdio>
#include <mutex>
#include <utility>

#include "ggml.h"

namespace csm {

namespace {

struct Log {
    std::mutex mutex;
    LogSink sink;
    ggml_log_level level = GGML_LOG_LEVEL_NONE;  // of the message that comes in pieces
    std::string message;
};

// Never freed: threads may log while the process ends.
Log& the_log() {
    static auto* log = new Log;
    return *log;
}

void receive(ggml_log_level level, const char* text, void*) {
    Log& log = the_log();
    LogSink sink;
    std::string message;
    {
        const std::lock_guard<std::mutex> lock(log.mutex);
        if (level != GGML_LOG_LEVEL_CONT) log.level = level;
        if (log.level != GGML_LOG_LEVEL_INFO && log.level != GGML_LOG_LEVEL_WARN &&
            log.level != GGML_LOG_LEVEL_ERROR)
            return;
        log.message += text;
        if (log.message.empty() || log.message.back() != '\n') return;  // more follows
        log.message.pop_back();
        std::swap(message, log.message);
        level = log.level;
        sink = log.sink;
    }
    if (sink) {
        sink(level == GGML_LOG_LEVEL_INFO   ? LogLevel::info
             : level == GGML_LOG_LEVEL_WARN ? LogLevel::warning
                                            : LogLevel::error,
             message);
    } else if (level != GGML_LOG_LEVEL_INFO) {
        std::fprintf(stderr, "%s\n", message.c_str());
    }
}

[[maybe_unused]] const bool log_is_set = [] {
    ggml_log_set(receive, nullptr);
    return true;
}();

}  // namespace

void set_log(LogSink sink) {
    Log& log = the_log();
    const std::lock_guard<std::mutex> lock(log.mutex);
    log.sink = std::move(sink);
}

void log(LogLevel level, const std::string& message) {
    receive(level == LogLevel::info      ? GGML_LOG_LEVEL_INFO
            : level == LogLevel::warning ? GGML_LOG_LEVEL_WARN
                                         : GGML_LOG_LEVEL_ERROR,
            (message + "\n").c_str(), nullptr);
}

}  // namespace csm
