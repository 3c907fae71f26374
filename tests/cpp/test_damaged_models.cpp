// A checkpoint of which some header bytes are wrong loads or is refused with an error of ours; nothing else
// may happen. The tests in Python damage by meaning; these few thousand are for the builds under sanitizers.

#include "check.h"
#include "runtime/error.h"
#include "tiny_model.h"

namespace {

// Tries a file; true if it was refused.
bool refused(const TemporaryFile& file) {
    try {
        const csm::Model model({file.path()}, "cpu", 1);
        return false;
    } catch (const csm::FormatError&) {
        return true;
    }
}

}  // namespace

TEST(header_bytes_at_random) {
    const TinyModel valid;
    const std::string bytes = valid.bytes();
    const TemporaryFile file("csm-damaged-");
    csm::load_backends(CSM_TEST_BACKEND_DIR);
    const auto below = [](uint32_t n, uint32_t attempt, uint32_t draw) {
        return static_cast<size_t>(csm::uniform(11, attempt, draw) * static_cast<float>(n));
    };
    int refusals = 0;
    constexpr uint32_t attempts = 3000;
    for (uint32_t attempt = 0; attempt < attempts; ++attempt) {
        std::string damaged = bytes;
        const size_t wrong = 1 + below(3, attempt, 0);
        for (uint32_t i = 1; i <= 3 * wrong; i += 3) {
            const size_t at = below(static_cast<uint32_t>(valid.header_bytes()), attempt, i);
            // Ones and zeros in a row make sizes that overflow; single bits make names and types that nearly
            // fit.
            const size_t kind = below(4, attempt, i + 1);
            if (kind == 0) {
                damaged.replace(at, 4, 4, '\xff');
            } else if (kind == 1) {
                damaged.replace(at, 4, 4, '\0');
            } else {
                damaged[at] = static_cast<char>(damaged[at] ^ (1 << below(8, attempt, i + 2)));
            }
        }
        file.write(damaged);
        refusals += refused(file);
    }
    // Nearly every header byte matters.
    CHECK(refusals > static_cast<int>(attempts) / 2);
}

TEST(a_file_that_ends_anywhere) {
    const std::string bytes = TinyModel().bytes();
    const TemporaryFile file("csm-damaged-");
    for (size_t n = 0; n < bytes.size(); n += 997) {
        file.write(bytes.substr(0, n));
        CHECK(refused(file));
    }
}

TEST(weights_that_are_no_numbers) {
    const TinyModel valid;
    std::string bytes = valid.bytes();
    std::fill(bytes.begin() + static_cast<int64_t>(valid.header_bytes()), bytes.end(), '\xff');
    const TemporaryFile file("csm-damaged-");
    file.write(bytes);
    CHECK(!refused(file));
}
