// The exceptions of the core. The bindings translate each into one Python exception; nothing below the
// bindings aborts the process for something a file or a caller got wrong.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace csm {

// A model file is damaged, incomplete or of another kind.
struct FormatError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A caller's argument is out of its range; Python sees ValueError.
struct ArgumentError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// A device is missing, lacks an operator or ran out of memory.
struct BackendError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Joins its arguments into a message.
template <typename... Args>
std::string cat(const Args&... args) {
    std::ostringstream out;
    (out << ... << args);
    return out.str();
}

}  // namespace csm
