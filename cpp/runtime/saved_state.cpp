#include "runtime/saved_state.h"

#include "runtime/error.h"

namespace csm {

namespace {

constexpr size_t kMagicBytes = sizeof(StateMagic) - 1;

// Every bit of the data changes it; it guards against accidents, not against malice: all that is read from a
// state is checked besides.
uint64_t checksum(const uint8_t* data, size_t bytes) {
    uint64_t hash = 0x9e3779b97f4a7c15u ^ bytes;
    const auto mix = [&](uint64_t word) {
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    };
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= bytes; i += sizeof word) {
        std::memcpy(&word, data + i, sizeof word);
        mix(word);
    }
    for (; i < bytes; ++i) mix(data[i]);
    return hash;
}

}  // namespace

StateWriter::StateWriter(const StateMagic& magic) {
    std::memcpy(room(kMagicBytes), magic, kMagicBytes);
}

uint8_t* StateWriter::room(size_t n) {
    bytes_.resize(bytes_.size() + n);
    return bytes_.data() + bytes_.size() - n;
}

std::vector<uint8_t> StateWriter::finish() {
    const uint64_t sum = checksum(bytes_.data(), bytes_.size());
    std::memcpy(room(sizeof sum), &sum, sizeof sum);
    return std::move(bytes_);
}

StateReader::StateReader(std::string what, const StateMagic& magic, const uint8_t* data, size_t bytes)
    : what_(std::move(what)), at_(data + kMagicBytes), end_(data) {
    uint64_t sum = 0;
    if (bytes < kMagicBytes + sizeof sum)
        throw ArgumentError(cat("the ", what_, " is too short: ", bytes, " bytes"));
    if (std::memcmp(data, magic, kMagicBytes) != 0)
        throw ArgumentError(cat("the ", what_, " has no valid header: it is something else, or damaged"));
    end_ = data + bytes - sizeof sum;
    std::memcpy(&sum, end_, sizeof sum);
    if (sum != checksum(data, bytes - sizeof sum))
        throw ArgumentError(cat("the ", what_, " is damaged: its checksum does not fit"));
}

const uint8_t* StateReader::take(size_t n) {
    if (n > static_cast<size_t>(end_ - at_))
        throw ArgumentError(cat("the ", what_, " is damaged: it ends too early"));
    at_ += n;
    return at_ - n;
}

void StateReader::expect_left(size_t n) const {
    const auto left = static_cast<size_t>(end_ - at_);
    if (left != n)
        throw ArgumentError(
            cat("the ", what_, " is damaged: ", left, " bytes follow its header, expected ", n));
}

void StateReader::refuse(const char* name, const std::string& got, const std::string& wanted) const {
    throw ArgumentError(
        cat("the ", what_, " belongs to another model: its ", name, " is ", got, ", expected ", wanted));
}

void check_finite(const std::string& what, ggml_type type, const uint8_t* data, size_t bytes) {
    // infinities and what is no number have all bits of the exponent set
    const auto any = [&](auto word, auto exponent) {
        bool found = false;
        for (size_t i = 0; i + sizeof word <= bytes; i += sizeof word) {
            std::memcpy(&word, data + i, sizeof word);
            found |= (word & exponent) == exponent;
        }
        return found;
    };
    const bool found =
        type == GGML_TYPE_F16 ? any(uint16_t{}, uint16_t{0x7c00}) : any(uint32_t{}, uint32_t{0x7f800000});
    if (found) throw ArgumentError(cat("the ", what, " holds values that are no finite numbers"));
}

}  // namespace csm
