// A validated GGUF reader. ggml has one, but it asserts on some damaged files; this one trusts nothing: every
// count and length is held against the file's size before memory is taken for it, so that a hostile file
// costs an exception.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "ggml.h"

namespace csm {

class GgufFile {
 public:
    using Value = std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>,
                               std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

    struct Tensor {
        std::string name;
        ggml_type type;
        int n_dims;
        std::array<int64_t, 4> ne;  // ggml order, padded with ones
        uint64_t offset;            // from the start of the file, bytes
        uint64_t n_bytes;

        size_t row_bytes() const { return ggml_row_size(type, ne[0]); }
        int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
    };

    // Reads and checks the header. Throws FormatError.
    explicit GgufFile(const std::string& path);
    ~GgufFile();
    GgufFile(const GgufFile&) = delete;
    GgufFile& operator=(const GgufFile&) = delete;

    const std::string& path() const { return path_; }
    uint32_t version() const { return version_; }
    const std::map<std::string, Value>& metadata() const { return metadata_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }
    const Tensor* find(const std::string& name) const;

    bool has(const std::string& key) const { return metadata_.count(key) != 0; }
    // Typed access; a missing key or another type throws FormatError naming file, key, got and expected.
    uint32_t u32(const std::string& key) const;
    uint32_t u32(const std::string& key, uint32_t fallback) const { return has(key) ? u32(key) : fallback; }
    float f32(const std::string& key) const;
    float f32(const std::string& key, float fallback) const { return has(key) ? f32(key) : fallback; }
    std::string str(const std::string& key) const;
    // A u32 that must lie in [low, high].
    int size(const std::string& key, int low, int high) const;
    std::vector<uint32_t> u32_array(const std::string& key) const;
    const std::vector<std::string>& strings(const std::string& key) const;

    // Closes the file; what was read of its header stays.
    void close() const;

    // Reads n bytes that start offset bytes into the tensor's data.
    void read(const Tensor& tensor, uint64_t offset, uint64_t n, void* out) const;

 private:
    class Reader;
    const Value& at(const std::string& key) const;
    void read_metadata(Reader& in, uint64_t count);
    void read_tensors(Reader& in, uint64_t count);
    void check_layout(uint64_t data_start, uint64_t alignment);

    std::string path_;
    mutable std::FILE* file_ = nullptr;
    mutable std::mutex mutex_;  // the file position is shared
    uint64_t size_ = 0;
    uint32_t version_ = 0;
    std::map<std::string, Value> metadata_;
    std::vector<Tensor> tensors_;
    std::map<std::string, size_t> index_;
};

}  // namespace csm
