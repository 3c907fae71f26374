// Where ggml's messages go: to standard error from warnings on, or to a function that is set. Standard error
// belongs to the program that embeds us.
#pragma once

#include <functional>
#include <string>

namespace csm {

enum class LogLevel { info, warning, error };

// Called from any thread, one whole message at a time. It must not throw.
using LogSink = std::function<void(LogLevel level, const std::string& message)>;

// An empty function: standard error again.
void set_log(LogSink sink);

// A message of our own, which goes where ggml's go.
void log(LogLevel level, const std::string& message);

}  // namespace csm
