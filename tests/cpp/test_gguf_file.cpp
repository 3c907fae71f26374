// The GGUF reader: what a valid file says, and that every invalid one is a FormatError that names the thing.

#include "check.h"
#include "files/gguf_file.h"
#include "gguf_bytes.h"
#include "runtime/error.h"

using csm::FormatError;
using csm::GgufFile;

namespace {

// Every value type that checkpoints use, an F32 matrix {3, 2} and a Q8_0 row of 64.
GgufBytes valid(uint32_t version = 3) {
    GgufBytes out;
    out.header(2, 7, version);
    out.key("a.count", kU32).number<uint32_t>(12);
    out.key("a.long", kU64).number<uint64_t>(uint64_t{1} << 40);
    out.key("a.scale", kF32).number(0.5f);
    out.key("a.flag", kBool).number<uint8_t>(1);
    out.key("a.name", kString).string("two words");
    out.key("a.list", kArray).number<uint32_t>(kU32).number<uint64_t>(3);
    out.number<uint32_t>(8).number<uint32_t>(6).number<uint32_t>(5);
    out.key("a.texts", kArray).number<uint32_t>(kString).number<uint64_t>(2).string("").string("x");
    out.tensor("m", {3, 2}, GGML_TYPE_F32, 0);
    out.tensor("q", {64}, GGML_TYPE_Q8_0, 32);
    out.pad();
    for (int i = 0; i < 6; ++i) out.number(static_cast<float>(i));
    out.pad().zeros(68);
    return out;
}

// A file with one tensor and the data given.
std::string one_tensor(const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset, size_t data,
                       const std::string& name = "t") {
    return GgufBytes().header(1, 0).tensor(name, ne, type, offset).pad().zeros(data).bytes();
}

std::string one_key(const std::string& key, uint32_t type, const GgufBytes& value) {
    return GgufBytes().header(0, 1).key(key, type).bytes() + value.bytes();
}

void check_refused(const std::string& bytes, const std::string& text) {
    const TemporaryFile file("csm-refused-");
    file.write(bytes);
    CHECK_THROWS(GgufFile(file.path()), FormatError, text);
    CHECK_THROWS(GgufFile(file.path()), FormatError, file.path());
}

}  // namespace

TEST(reads_values) {
    const TemporaryFile path("csm-valid-");
    const GgufFile file(path.write(valid().bytes()));
    CHECK_EQ(file.version(), 3u);
    CHECK_EQ(file.u32("a.count"), 12u);
    CHECK_EQ(file.f32("a.scale"), 0.5f);
    CHECK_EQ(file.str("a.name"), std::string("two words"));
    CHECK(file.u32_array("a.list") == (std::vector<uint32_t>{8, 6, 5}));
    CHECK(file.strings("a.texts") == (std::vector<std::string>{"", "x"}));
    CHECK_EQ(file.u32("a.absent", 7), 7u);
    CHECK(!file.has("a.absent"));
}

TEST(reads_tensors) {
    const TemporaryFile path("csm-valid-");
    const GgufFile file(path.write(valid().bytes()));
    const GgufFile::Tensor* m = file.find("m");
    CHECK(m != nullptr && file.find("absent") == nullptr);
    CHECK(m->ne == (std::array<int64_t, 4>{3, 2, 1, 1}) && m->n_dims == 2);
    CHECK_EQ(m->n_bytes, 24u);
    float second_row[3];
    file.read(*m, m->row_bytes(), sizeof second_row, second_row);
    CHECK(second_row[0] == 3.0f && second_row[2] == 5.0f);
    CHECK_EQ(file.find("q")->n_bytes, 68u);
    CHECK_THROWS(file.read(*m, 16, 12, second_row), FormatError, "'m'");
}

TEST(reads_version_2) {
    const TemporaryFile path("csm-valid-");
    CHECK_EQ(GgufFile(path.write(valid(2).bytes())).version(), 2u);
}

TEST(wrong_value_types_name_the_key) {
    const TemporaryFile path("csm-valid-");
    const GgufFile file(path.write(valid().bytes()));
    CHECK_THROWS(file.u32("a.name"), FormatError, "a.name");
    CHECK_THROWS(file.u32("a.long"), FormatError, "a.long");
    CHECK_THROWS(file.f32("a.count"), FormatError, "an unsigned integer");
    CHECK_THROWS(file.str("a.list"), FormatError, "expected a string");
    CHECK_THROWS(file.u32_array("a.texts"), FormatError, "a.texts");
    CHECK_THROWS(file.strings("a.list"), FormatError, "a.list");
    CHECK_THROWS(file.u32("a.absent"), FormatError, "missing");
    CHECK_THROWS(file.size("a.count", 1, 11), FormatError, "expected 1 to 11");
    CHECK_EQ(file.size("a.count", 1, 12), 12);
}

TEST(refuses_what_is_no_gguf) {
    check_refused("", "truncated");
    check_refused("GGUF", "version");
    check_refused("GGML" + valid().bytes().substr(4), "not a GGUF file");
    check_refused(GgufBytes().header(0, 0, 1).bytes(), "version 1");
    check_refused(GgufBytes().header(0, 0, 0x03000000).bytes(), "big-endian");
    CHECK_THROWS(GgufFile("no such folder/no such file.gguf"), FormatError, "no such file.gguf");
}

TEST(refuses_absurd_counts) {
    check_refused(GgufBytes().header(UINT64_MAX, 0).bytes(), "tensors");
    check_refused(GgufBytes().header(0, UINT64_MAX).bytes(), "keys");
    check_refused(GgufBytes().header(0, 1).number<uint64_t>(UINT64_MAX).bytes(), "a key");
    check_refused(one_key("k", kString, GgufBytes().number<uint64_t>(UINT64_MAX)), "a string value");
    check_refused(
        one_key("k", kArray, GgufBytes().number<uint32_t>(kU32).number<uint64_t>(uint64_t{1} << 60)), "'k'");
    check_refused(one_key("k", kArray, GgufBytes().number<uint32_t>(kArray).number<uint64_t>(1)), "'k'");
    check_refused(one_key("k", 99, GgufBytes()), "unknown value type 99");
}

TEST(refuses_impossible_tensors) {
    check_refused(one_tensor({}, GGML_TYPE_F32, 0, 64), "'t'");
    check_refused(one_tensor({1, 1, 1, 1, 1}, GGML_TYPE_F32, 0, 64), "5 dimensions");
    check_refused(one_tensor({0}, GGML_TYPE_F32, 0, 64), "dimension 0 is 0");
    check_refused(one_tensor({uint64_t{1} << 32, uint64_t{1} << 32}, GGML_TYPE_F32, 0, 64), "dimension 1");
    check_refused(one_tensor({4}, 4096, 0, 64), "unknown type 4096");
    check_refused(one_tensor({33}, GGML_TYPE_Q8_0, 0, 64), "blocks of 32");
    check_refused(one_tensor({4}, GGML_TYPE_F32, 1, 64), "multiple of 32");
    check_refused(one_tensor({32}, GGML_TYPE_F32, 0, 127), "needs 128 bytes");
    check_refused(one_tensor({4}, GGML_TYPE_F32, UINT64_MAX - 31, 64), "truncated");
    check_refused(one_tensor({4}, GGML_TYPE_F32, 0, 64, std::string(64, 'n')), "a tensor name");
}

TEST(refuses_doubles_and_overlaps) {
    GgufBytes keys;
    keys.header(0, 2);
    for (int i = 0; i < 2; ++i) keys.key("k", kU32).number<uint32_t>(1);
    check_refused(keys.bytes(), "'k' stands twice");

    GgufBytes names;
    names.header(2, 0).tensor("t", {4}, GGML_TYPE_F32, 0).tensor("t", {4}, GGML_TYPE_F32, 32).pad().zeros(64);
    check_refused(names.bytes(), "stands twice");

    GgufBytes places;
    places.header(2, 0)
        .tensor("s", {16}, GGML_TYPE_F32, 0)
        .tensor("t", {4}, GGML_TYPE_F32, 32)
        .pad()
        .zeros(64);
    check_refused(places.bytes(), "overlap");
}

TEST(refuses_every_prefix) {
    const std::string whole = valid().bytes();
    const TemporaryFile file("csm-prefix-");
    for (size_t n = 0; n < whole.size(); ++n) {
        file.write(whole.substr(0, n));
        CHECK_THROWS(GgufFile(file.path()), FormatError, file.path());
    }
}
