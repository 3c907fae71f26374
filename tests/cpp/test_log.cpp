// ggml's messages arrive whole, with their level, at the function that is set.
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "ggml.h"
#include "runtime/log.h"

// of ggml's own header, which is not installed
extern "C" {
GGML_API void ggml_log_internal(enum ggml_log_level level, const char* format, ...);
}

using namespace csm;

TEST(messages_arrive_whole) {
    std::vector<std::pair<LogLevel, std::string>> got;
    set_log([&](LogLevel level, const std::string& message) { got.emplace_back(level, message); });
    ggml_log_internal(GGML_LOG_LEVEL_WARN, "%s", "one\n");
    ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s", "in ");
    ggml_log_internal(GGML_LOG_LEVEL_CONT, "%s", "pieces\n");
    ggml_log_internal(GGML_LOG_LEVEL_DEBUG, "%s", "not this\n");
    ggml_log_internal(GGML_LOG_LEVEL_CONT, "%s", "nor this\n");
    ggml_log_internal(GGML_LOG_LEVEL_INFO, "%s", "%s %n\n");
    set_log({});
    ggml_log_internal(GGML_LOG_LEVEL_INFO, "%s", "nobody hears this\n");
    CHECK_EQ(got.size(), size_t{3});
    CHECK(got[0] == std::make_pair(LogLevel::warning, std::string("one")));
    CHECK(got[1] == std::make_pair(LogLevel::error, std::string("in pieces")));
    CHECK(got[2] == std::make_pair(LogLevel::info, std::string("%s %n")));
}
