// Writes GGUF files byte by byte, so that tests can make valid ones and any wrong one.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

// Value type numbers of the GGUF specification.
enum : uint32_t { kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10 };

class GgufBytes {
 public:
    template <typename T>
    GgufBytes& number(T value) {
        char raw[sizeof(T)];
        std::memcpy(raw, &value, sizeof(T));
        bytes_.append(raw, sizeof(T));
        return *this;
    }
    GgufBytes& string(const std::string& text) {
        number<uint64_t>(text.size());
        bytes_ += text;
        return *this;
    }
    GgufBytes& header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
        bytes_ += "GGUF";
        return number(version).number(tensors).number(keys);
    }
    // A key with the type of its value; the value follows.
    GgufBytes& key(const std::string& name, uint32_t type) { return string(name).number(type); }
    // ne in ggml order; offset from the start of the data.
    GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& ne, uint32_t type,
                      uint64_t offset) {
        string(name).number(static_cast<uint32_t>(ne.size()));
        for (const uint64_t n : ne) number(n);
        return number(type).number(offset);
    }
    GgufBytes& pad(size_t alignment = 32) {
        bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
        return *this;
    }
    GgufBytes& append(const GgufBytes& other) {
        bytes_ += other.bytes_;
        return *this;
    }
    GgufBytes& zeros(size_t n) {
        bytes_.append(n, '\0');
        return *this;
    }
    const std::string& bytes() const { return bytes_; }

 private:
    std::string bytes_;
};

// A file that is gone when its owner is; made anew by every write.
class TemporaryFile {
 public:
    explicit TemporaryFile(const std::string& name)
        : path_((std::filesystem::temp_directory_path() / (name + std::to_string(counter()++) + ".gguf"))
                    .string()) {}
    ~TemporaryFile() { std::remove(path_.c_str()); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    const std::string& path() const { return path_; }
    const std::string& write(const std::string& bytes) const {
        std::FILE* file = std::fopen(path_.c_str(), "wb");
        if (file == nullptr) throw std::runtime_error("cannot write " + path_);
        const size_t written = std::fwrite(bytes.data(), 1, bytes.size(), file);
        if (std::fclose(file) != 0 || written != bytes.size())
            throw std::runtime_error("cannot write " + path_);
        return path_;
    }

 private:
    static uint64_t& counter() {
        // Distinct from those of other programs that run at the same time.
        static uint64_t value = reinterpret_cast<uintptr_t>(&value) >> 4;
        return value;
    }
    std::string path_;
};
