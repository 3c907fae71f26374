// A test framework in one header, so that the core's tests need nothing but a C++ compiler.
//
//   TEST(rows_are_padded) { CHECK(rows() == 4); CHECK_NEAR(mean(), 0.5, 1e-6); }
//   TEST(short_file) { CHECK_THROWS(read("x.gguf"), csm::FormatError, "x.gguf"); }
//
// A failed check is reported with its place and values, and ends its test; the other tests still run.

#pragma once

#include <cmath>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace check {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Test {
    const char* name;
    std::function<void()> body;
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registration {
    Registration(const char* name, std::function<void()> body) { tests().push_back({name, std::move(body)}); }
};

template <typename... Parts>
[[noreturn]] void fail(const char* file, int line, const Parts&... parts) {
    std::ostringstream message;
    message.precision(9);
    message << file << ':' << line << ": ";
    (message << ... << parts);
    throw Failure(message.str());
}

}  // namespace check

#define TEST(name)                                                            \
    static void test_##name();                                                \
    static const check::Registration registration_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) check::fail(__FILE__, __LINE__, "not true: " #condition); \
    } while (false)

#define CHECK_EQ(got, expected)                                                           \
    do {                                                                                  \
        const auto& got_ = (got);                                                         \
        const auto& expected_ = (expected);                                               \
        if (!(got_ == expected_))                                                         \
            check::fail(__FILE__, __LINE__, #got " is ", got_, ", expected ", expected_); \
    } while (false)

// NaN is near nothing.
#define CHECK_NEAR(got, expected, tolerance)                                                         \
    do {                                                                                             \
        const double got_ = (got), expected_ = (expected), tolerance_ = (tolerance);                 \
        if (!(std::fabs(got_ - expected_) <= tolerance_))                                            \
            check::fail(__FILE__, __LINE__, #got " is ", got_, ", expected ", expected_, " within ", \
                        tolerance_);                                                                 \
    } while (false)

// The message must contain the text: an error has to name what it is about.
#define CHECK_THROWS(expression, type, text)                                                               \
    do {                                                                                                   \
        bool thrown_ = false;                                                                              \
        try {                                                                                              \
            (void)(expression);                                                                            \
        } catch (const type& error) {                                                                      \
            thrown_ = true;                                                                                \
            if (std::string(error.what()).find(text) == std::string::npos)                                 \
                check::fail(__FILE__, __LINE__, "\"", error.what(), "\" does not contain \"", text, "\""); \
        }                                                                                                  \
        if (!thrown_) check::fail(__FILE__, __LINE__, #expression " threw no " #type);                     \
    } while (false)
