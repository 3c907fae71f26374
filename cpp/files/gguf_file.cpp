#include "files/gguf_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>

#include "runtime/error.h"

namespace csm {

namespace {

// GGUF's value type numbers, in the order of the specification.
enum class Kind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64, count };

constexpr uint64_t kMaxNameBytes = GGML_MAX_NAME - 1;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeys = 1 << 20;

#if defined(_WIN32)
int64_t tell(std::FILE* f) {
    return _ftelli64(f);
}
int seek(std::FILE* f, int64_t offset, int whence) {
    return _fseeki64(f, offset, whence);
}
#else
int64_t tell(std::FILE* f) {
    return ftello(f);
}
int seek(std::FILE* f, int64_t offset, int whence) {
    return fseeko(f, offset, whence);
}
#endif

const char* describe(const GgufFile::Value& value) {
    static const char* const names[] = {"an unsigned integer",
                                        "a signed integer",
                                        "a float",
                                        "a boolean",
                                        "a string",
                                        "an array of unsigned integers",
                                        "an array of signed integers",
                                        "an array of floats",
                                        "an array of strings"};
    return names[value.index()];
}

}  // namespace

// Sequential reads that may not pass the end of the file.
class GgufFile::Reader {
 public:
    explicit Reader(GgufFile& file) : file_(file) {}

    uint64_t position() const { return position_; }
    uint64_t left() const { return file_.size_ - position_; }

    void bytes(void* out, uint64_t n, const char* what) {
        if (n > left() || (n != 0 && std::fread(out, 1, n, file_.file_) != n)) {
            throw FormatError(cat(file_.path_, ": truncated: ", what, " needs ", n, " bytes at offset ",
                                  position_, ", the file has ", file_.size_));
        }
        position_ += n;
    }

    template <typename T>
    T number(const char* what) {
        T value;
        bytes(&value, sizeof(T), what);
        return value;
    }

    std::string string(uint64_t max, const char* what) {
        const auto length = number<uint64_t>(what);
        if (length > max || length > left()) {
            throw FormatError(cat(file_.path_, ": ", what, " at offset ", position_, " claims ", length,
                                  " bytes, at most ", std::min(max, left()), " are possible"));
        }
        std::string value(length, '\0');
        bytes(value.data(), length, what);
        return value;
    }

 private:
    GgufFile& file_;
    uint64_t position_ = 0;
};

GgufFile::GgufFile(const std::string& path) : path_(path) {
    file_ = std::fopen(path.c_str(), "rb");
    if (file_ == nullptr) throw FormatError(cat(path, ": cannot open: ", std::strerror(errno)));
    struct Closer {  // the destructor does not run when the constructor throws
        std::FILE*& file;
        bool armed = true;
        ~Closer() {
            if (armed) {
                std::fclose(file);
                file = nullptr;
            }
        }
    } closer{file_};

    const int64_t end = seek(file_, 0, SEEK_END) == 0 ? tell(file_) : -1;
    if (end < 0 || seek(file_, 0, SEEK_SET) != 0) throw FormatError(cat(path, ": not a readable file"));
    size_ = static_cast<uint64_t>(end);

    Reader in(*this);
    char magic[4];
    in.bytes(magic, sizeof magic, "the magic number");
    if (std::memcmp(magic, "GGUF", 4) != 0)
        throw FormatError(cat(path, ": not a GGUF file (it does not start with 'GGUF')"));
    version_ = in.number<uint32_t>("the version");
    if (version_ != 2 && version_ != 3) {
        const bool swapped = version_ == 0x02000000u || version_ == 0x03000000u;
        throw FormatError(swapped
                              ? cat(path, ": a big-endian GGUF file; only little-endian files are supported")
                              : cat(path, ": GGUF version ", version_, ", expected 2 or 3"));
    }
    const auto n_tensors = in.number<uint64_t>("the tensor count");
    const auto n_keys = in.number<uint64_t>("the key count");
    if (n_tensors > kMaxTensors) throw FormatError(cat(path, ": claims ", n_tensors, " tensors"));
    if (n_keys > kMaxKeys) throw FormatError(cat(path, ": claims ", n_keys, " keys"));
    try {
        read_metadata(in, n_keys);
        read_tensors(in, n_tensors);
    } catch (const std::bad_alloc&) {
        throw FormatError(cat(path, ": the header asks for more memory than there is"));
    }
    uint64_t alignment = 32;
    if (has("general.alignment")) alignment = u32("general.alignment");
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > (1u << 20)) {
        throw FormatError(cat(path, ": key 'general.alignment' is ", alignment, ", expected a power of two"));
    }
    check_layout(in.position(), alignment);
    closer.armed = false;
}

GgufFile::~GgufFile() {
    close();
}

void GgufFile::close() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (file_ != nullptr) std::fclose(file_);
    file_ = nullptr;
}

void GgufFile::read_metadata(Reader& in, uint64_t count) {
    const auto scalar = [&](Kind kind) -> Value {
        switch (kind) {
            case Kind::u8:
                return uint64_t{in.number<uint8_t>("a value")};
            case Kind::u16:
                return uint64_t{in.number<uint16_t>("a value")};
            case Kind::u32:
                return uint64_t{in.number<uint32_t>("a value")};
            case Kind::u64:
                return in.number<uint64_t>("a value");
            case Kind::i8:
                return int64_t{in.number<int8_t>("a value")};
            case Kind::i16:
                return int64_t{in.number<int16_t>("a value")};
            case Kind::i32:
                return int64_t{in.number<int32_t>("a value")};
            case Kind::i64:
                return in.number<int64_t>("a value");
            case Kind::f32:
                return double{in.number<float>("a value")};
            case Kind::f64:
                return in.number<double>("a value");
            case Kind::boolean:
                return in.number<uint8_t>("a value") != 0;
            default:
                return in.string(std::numeric_limits<uint64_t>::max(), "a string value");
        }
    };
    for (uint64_t i = 0; i < count; ++i) {
        const std::string key = in.string(kMaxKeyBytes, "a key");
        const auto kind = in.number<uint32_t>("a value type");
        if (kind >= static_cast<uint32_t>(Kind::count)) {
            throw FormatError(cat(path_, ": key '", key, "' has unknown value type ", kind));
        }
        Value value;
        if (static_cast<Kind>(kind) != Kind::array) {
            value = scalar(static_cast<Kind>(kind));
        } else {
            const auto element = in.number<uint32_t>("an array type");
            const auto length = in.number<uint64_t>("an array length");
            if (element >= static_cast<uint32_t>(Kind::count) || static_cast<Kind>(element) == Kind::array) {
                throw FormatError(cat(path_, ": key '", key, "' is an array of unsupported type ", element));
            }
            const bool is_string = static_cast<Kind>(element) == Kind::string;
            if (length > in.left() / (is_string ? 8 : 1)) {
                throw FormatError(cat(path_, ": key '", key, "' claims ", length,
                                      " elements, the file has only ", in.left(), " bytes left"));
            }
            const auto fill = [&](auto example) {
                using T = decltype(example);
                std::vector<T> items;
                for (uint64_t j = 0; j < length; ++j)
                    items.push_back(std::get<T>(scalar(static_cast<Kind>(element))));
                value = std::move(items);
            };
            switch (static_cast<Kind>(element)) {
                case Kind::string:
                    fill(std::string());
                    break;
                case Kind::f32:
                case Kind::f64:
                    fill(double());
                    break;
                case Kind::i8:
                case Kind::i16:
                case Kind::i32:
                case Kind::i64:
                    fill(int64_t());
                    break;
                case Kind::boolean: {
                    std::vector<uint64_t> items;
                    for (uint64_t j = 0; j < length; ++j) items.push_back(in.number<uint8_t>("a value"));
                    value = std::move(items);
                    break;
                }
                default:
                    fill(uint64_t());
                    break;
            }
        }
        if (!metadata_.emplace(key, std::move(value)).second) {
            throw FormatError(cat(path_, ": key '", key, "' stands twice"));
        }
    }
}

void GgufFile::read_tensors(Reader& in, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
        Tensor t;
        t.name = in.string(kMaxNameBytes, "a tensor name");
        const auto fail = [&](const std::string& why) {
            return FormatError(cat(path_, ": tensor '", t.name, "': ", why));
        };
        const auto n_dims = in.number<uint32_t>("a dimension count");
        if (n_dims < 1 || n_dims > 4) throw fail(cat("has ", n_dims, " dimensions, expected 1 to 4"));
        t.n_dims = static_cast<int>(n_dims);
        t.ne = {1, 1, 1, 1};
        uint64_t elements = 1;
        for (uint32_t d = 0; d < n_dims; ++d) {
            const auto ne = in.number<uint64_t>("a dimension");
            // 2^48 elements of any type are beyond every file; the bound keeps the products below 2^63
            if (ne == 0 || ne > (uint64_t{1} << 48) / elements) throw fail(cat("dimension ", d, " is ", ne));
            elements *= ne;
            t.ne[d] = static_cast<int64_t>(ne);
        }
        const auto type = in.number<uint32_t>("a tensor type");
        if (type >= GGML_TYPE_COUNT || ggml_type_size(static_cast<ggml_type>(type)) == 0 ||
            ggml_blck_size(static_cast<ggml_type>(type)) == 0) {
            throw fail(cat("has unknown type ", type));
        }
        t.type = static_cast<ggml_type>(type);
        if (t.ne[0] % ggml_blck_size(t.type) != 0) {
            throw fail(cat("rows of ", t.ne[0], " do not divide into ", ggml_type_name(t.type), " blocks of ",
                           ggml_blck_size(t.type)));
        }
        t.n_bytes = static_cast<uint64_t>(t.row_bytes()) * static_cast<uint64_t>(t.rows());
        t.offset = in.number<uint64_t>("a tensor offset");
        if (!index_.emplace(t.name, tensors_.size()).second) throw fail("stands twice");
        tensors_.push_back(std::move(t));
    }
}

void GgufFile::check_layout(uint64_t header_end, uint64_t alignment) {
    const uint64_t data_start = (header_end + alignment - 1) / alignment * alignment;
    std::vector<const Tensor*> order;
    for (auto& t : tensors_) {
        if (t.offset % alignment != 0) {
            throw FormatError(cat(path_, ": tensor '", t.name, "': offset ", t.offset,
                                  " is not a multiple of ", alignment));
        }
        if (data_start > size_ || t.offset > size_ - data_start ||
            t.n_bytes > size_ - data_start - t.offset) {
            throw FormatError(cat(path_, ": truncated: tensor '", t.name, "' needs ", t.n_bytes,
                                  " bytes at offset ", data_start + t.offset, ", the file has ", size_));
        }
        t.offset += data_start;
        order.push_back(&t);
    }
    std::sort(order.begin(), order.end(),
              [](const Tensor* a, const Tensor* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < order.size(); ++i) {
        if (order[i - 1]->offset + order[i - 1]->n_bytes > order[i]->offset) {
            throw FormatError(
                cat(path_, ": tensors '", order[i - 1]->name, "' and '", order[i]->name, "' overlap"));
        }
    }
    // files of two downloads written over each other, or joined, end later than their header says
    const uint64_t end = order.empty() ? data_start : order.back()->offset + order.back()->n_bytes;
    const uint64_t padded = (end + alignment - 1) / alignment * alignment;
    if (size_ > padded) {
        throw FormatError(cat(path_, ": oversized: the header accounts for ", padded, " bytes, the file has ",
                              size_, "; fetch or convert it again"));
    }
}

const GgufFile::Tensor* GgufFile::find(const std::string& name) const {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
}

const GgufFile::Value& GgufFile::at(const std::string& key) const {
    const auto it = metadata_.find(key);
    if (it == metadata_.end()) throw FormatError(cat(path_, ": key '", key, "' is missing"));
    return it->second;
}

uint32_t GgufFile::u32(const std::string& key) const {
    const Value& value = at(key);
    uint64_t number = std::numeric_limits<uint64_t>::max();
    if (const auto* u = std::get_if<uint64_t>(&value)) number = *u;
    if (const auto* i = std::get_if<int64_t>(&value); i && *i >= 0) number = static_cast<uint64_t>(*i);
    if (number > std::numeric_limits<uint32_t>::max()) {
        throw FormatError(cat(path_, ": key '", key, "' is ", describe(value),
                              " out of range, expected a 32-bit unsigned integer"));
    }
    return static_cast<uint32_t>(number);
}

int GgufFile::size(const std::string& key, int low, int high) const {
    const uint32_t value = u32(key);
    if (value < static_cast<uint32_t>(low) || value > static_cast<uint32_t>(high)) {
        throw FormatError(cat(path_, ": key '", key, "' is ", value, ", expected ", low, " to ", high));
    }
    return static_cast<int>(value);
}

float GgufFile::f32(const std::string& key) const {
    const Value& value = at(key);
    if (const auto* f = std::get_if<double>(&value)) return static_cast<float>(*f);
    throw FormatError(cat(path_, ": key '", key, "' is ", describe(value), ", expected a float"));
}

std::string GgufFile::str(const std::string& key) const {
    const Value& value = at(key);
    if (const auto* s = std::get_if<std::string>(&value)) return *s;
    throw FormatError(cat(path_, ": key '", key, "' is ", describe(value), ", expected a string"));
}

std::vector<uint32_t> GgufFile::u32_array(const std::string& key) const {
    const Value& value = at(key);
    std::vector<uint32_t> out;
    const auto push = [&](auto item) {
        if (item < 0 || static_cast<uint64_t>(item) > std::numeric_limits<uint32_t>::max()) {
            throw FormatError(
                cat(path_, ": key '", key, "' holds ", item, ", expected 32-bit unsigned integers"));
        }
        out.push_back(static_cast<uint32_t>(item));
    };
    if (const auto* u = std::get_if<std::vector<uint64_t>>(&value)) {
        for (const auto item : *u) push(item);
    } else if (const auto* i = std::get_if<std::vector<int64_t>>(&value)) {
        for (const auto item : *i) push(item);
    } else {
        throw FormatError(
            cat(path_, ": key '", key, "' is ", describe(value), ", expected an array of integers"));
    }
    return out;
}

const std::vector<std::string>& GgufFile::strings(const std::string& key) const {
    const Value& value = at(key);
    if (const auto* s = std::get_if<std::vector<std::string>>(&value)) return *s;
    throw FormatError(cat(path_, ": key '", key, "' is ", describe(value), ", expected an array of strings"));
}

void GgufFile::read(const Tensor& tensor, uint64_t offset, uint64_t n, void* out) const {
    if (offset > tensor.n_bytes || n > tensor.n_bytes - offset) {
        throw FormatError(
            cat(path_, ": tensor '", tensor.name, "': read of ", n, " bytes at ", offset, " passes its end"));
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (file_ == nullptr || seek(file_, static_cast<int64_t>(tensor.offset + offset), SEEK_SET) != 0 ||
        std::fread(out, 1, n, file_) != n) {
        throw FormatError(cat(path_, ": tensor '", tensor.name, "': the file ended or could not be read"));
    }
}

}  // namespace csm
