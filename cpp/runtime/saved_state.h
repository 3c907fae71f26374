// Running state as bytes, to be taken up again later: a header that says what it is, values and tensors one
// after the other, and a checksum. What comes back may be damaged, cut short or of another model: a reader
// only hands out what is there, and says so if it is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "ggml.h"

namespace csm {

// Eight characters at the beginning, the last of them a version.
using StateMagic = char[9];

class StateWriter {
 public:
    explicit StateWriter(const StateMagic& magic);

    template <typename T>
    void value(const T& v) {
        static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>);
        std::memcpy(room(sizeof v), &v, sizeof v);
    }
    void value(float v) { std::memcpy(room(sizeof v), &v, sizeof v); }
    // Room for n bytes, to be filled before the next call.
    uint8_t* room(size_t n);
    // The finished state; the writer is empty afterwards.
    std::vector<uint8_t> finish();

 private:
    std::vector<uint8_t> bytes_;
};

class StateReader {
 public:
    // what: "saved slot" or the like, for messages. The data must outlive the reader. Throws ArgumentError if
    // the data does not begin with the magic or its checksum does not fit.
    StateReader(std::string what, const StateMagic& magic, const uint8_t* data, size_t bytes);

    template <typename T>
    T value() {
        static_assert(std::is_trivially_copyable_v<T>);
        T v;
        std::memcpy(&v, take(sizeof v), sizeof v);
        return v;
    }
    // A value that must be the one that the state is loaded into has; `name` says which it is.
    template <typename T>
    void expect(const char* name, const T& wanted) {
        const T got = value<T>();
        if (got != wanted) refuse(name, std::to_string(got), std::to_string(wanted));
    }
    // The next n bytes.
    const uint8_t* take(size_t n);
    // Throws unless exactly n bytes are left.
    void expect_left(size_t n) const;

 private:
    [[noreturn]] void refuse(const char* name, const std::string& got, const std::string& wanted) const;

    std::string what_;
    const uint8_t* at_;
    const uint8_t* end_;
};

// Throws ArgumentError if the numbers, F32 or F16, are not all finite: one infinity among the keys of a slot
// spoils what the slot is used for afterwards on devices that multiply hidden rows by zero.
void check_finite(const std::string& what, ggml_type type, const uint8_t* data, size_t bytes);

}  // namespace csm
