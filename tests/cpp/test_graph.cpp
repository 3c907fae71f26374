// What graphs for other devices than the CPU must keep to. The CPU treated as a GPU ("cpu-generic") refuses
// what a GPU's backend would compute wrongly, or end the process for.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "check.h"
#include "nn/philox.h"
#include "nn/sort.h"
#include "runtime/error.h"
#include "runtime/transfers.h"

namespace {

struct Fixture {
    std::shared_ptr<csm::Device> device = csm::Device::open("cpu-generic", 1);
    csm::TensorPool pool{device, 8};
};

ggml_tensor* part(csm::Graph& graph, ggml_tensor* t, int64_t n, size_t offset) {
    return ggml_view_1d(graph.ctx(), t, n, offset * sizeof(float));
}

}  // namespace

TEST(an_address_that_no_device_need_bind_is_refused) {
    Fixture f;
    ggml_tensor* x = ggml_new_tensor_1d(f.pool.ctx(), GGML_TYPE_F32, 256);
    f.pool.allocate();
    csm::Graph graph(f.device, 8);
    graph.add_output(ggml_exp(graph.ctx(), part(graph, x, 4, 1)));
    CHECK_THROWS(graph.allocate(), csm::BackendError, "EXP would use VIEW at 4 bytes");
}

TEST(a_view_is_bound_as_it_is_or_copied) {
    Fixture f;
    ggml_tensor* x = ggml_new_tensor_1d(f.pool.ctx(), GGML_TYPE_F32, 256);
    f.pool.allocate();
    std::vector<float> values(256);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    csm::upload(x, values.data(), ggml_nbytes(x));
    csm::Graph graph(f.device, 8);
    ggml_tensor* bound = part(graph, x, 4, 64);
    CHECK(graph.bindable(bound) == bound);
    ggml_tensor* y = ggml_neg(graph.ctx(), graph.bindable(part(graph, x, 4, 3)));
    graph.add_output(y);
    graph.allocate();
    graph.compute();
    float out[4];
    csm::download(y, out, sizeof out);
    CHECK_EQ(out[0], -3.0f);
    CHECK_EQ(out[3], -6.0f);
}

TEST(columns_of_a_pool_start_where_they_can_be_bound) {
    Fixture f;
    ggml_tensor* x = f.pool.columns(GGML_TYPE_I32, 3, 5);
    f.pool.allocate();
    CHECK_EQ(x->nb[1] % f.device->alignment(), size_t{0});
    const std::vector<int32_t> values{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    std::vector<int32_t> got(values.size());
    csm::upload_columns(x, values.data(), 3);
    csm::download_columns(x, got.data(), 3);
    CHECK(got == values);
    int32_t second = 0;
    ggml_backend_tensor_get(x, &second, x->nb[1], sizeof second);
    CHECK_EQ(second, 4);
    // nodes of our own take any address
    const auto cpu = csm::Device::open("cpu", 1);
    CHECK_EQ(csm::padded(*cpu, GGML_TYPE_I32, 3), 3);
}

TEST(inputs_of_a_block_are_tensors_of_their_own) {
    for (const char* name : {"cpu", "cpu-generic"}) {
        const auto device = csm::Device::open(name, 1);
        csm::TensorPool pool(device, csm::InputBlock::kTensors + 3);
        csm::InputBlock block(pool, *device);
        ggml_tensor* numbers = block.input(GGML_TYPE_F32, 3);
        ggml_tensor* columns = block.columns(GGML_TYPE_F32, 3, 2);
        ggml_tensor* order = block.input(GGML_TYPE_I32, 1);
        block.close();
        pool.allocate();
        block.write(numbers, std::vector<float>{1.0f, 2.0f, 3.0f});
        block.write_columns(columns, std::vector<float>{10.0f, 20.0f, 30.0f, 40.0f, 50.0f, 60.0f}, 3);
        block.write(order, std::vector<int32_t>{1});
        block.send();
        csm::Graph graph(device, 8);
        ggml_tensor* second = ggml_get_rows(graph.ctx(), columns, order);
        ggml_tensor* sum =
            ggml_add(graph.ctx(), numbers, graph.bindable(ggml_view_1d(graph.ctx(), second, 3, 0)));
        graph.add_output(sum);
        graph.allocate();
        graph.compute();
        float out[3];
        csm::download(sum, out, sizeof out);
        CHECK_EQ(out[0], 41.0f);
        CHECK_EQ(out[2], 63.0f);
    }
}

TEST(the_order_of_a_write_and_a_read_must_follow_from_the_graph) {
    Fixture f;
    ggml_tensor* state = ggml_new_tensor_2d(f.pool.ctx(), GGML_TYPE_F32, 16, 2);
    ggml_tensor* rows = ggml_new_tensor_2d(f.pool.ctx(), GGML_TYPE_F32, 16, 1);
    ggml_tensor* first = ggml_new_tensor_1d(f.pool.ctx(), GGML_TYPE_I32, 1);
    f.pool.allocate();
    {
        csm::Graph graph(f.device, 8);
        graph.set_rows(state, rows, first);
        graph.add_output(ggml_get_rows(graph.ctx(), state, first));
        CHECK_THROWS(graph.allocate(), std::logic_error, "leaves it open whether SET_ROWS");
    }
    {
        csm::Graph graph(f.device, 8);
        graph.add_output(ggml_get_rows(graph.ctx(), state, first));
        graph.set_rows(state, rows, first);
        CHECK_THROWS(graph.allocate(), std::logic_error, "leaves it open whether GET_ROWS");
    }
    csm::Graph graph(f.device, 16);
    ggml_tensor* before = ggml_get_rows(graph.ctx(), graph.current(state), first);
    graph.set_rows(state, ggml_add(graph.ctx(), before, rows), first);
    ggml_tensor* after = ggml_get_rows(graph.ctx(), graph.current(state), first);
    graph.set_rows(state, ggml_add(graph.ctx(), after, rows), first);
    graph.add_output(ggml_get_rows(graph.ctx(), graph.current(state), first));
    graph.allocate();
    CHECK_EQ(graph.size().splits, 1);
    CHECK_EQ(graph.size().nodes, 7);
}

TEST(parts_of_a_tensor_that_do_not_meet_need_no_order) {
    Fixture f;
    ggml_tensor* out = f.pool.columns(GGML_TYPE_F32, 4, 2);
    ggml_tensor* in = ggml_new_tensor_1d(f.pool.ctx(), GGML_TYPE_F32, 4);
    f.pool.allocate();
    csm::Graph graph(f.device, 16);
    for (size_t i = 0; i < 2; ++i) {
        graph.add(ggml_cpy(graph.ctx(), ggml_exp(graph.ctx(), in),
                           ggml_view_1d(graph.ctx(), out, 4, out->nb[1] * i)));
    }
    graph.allocate();
}

TEST(rows_that_alternate_need_no_order_but_those_that_meet_do) {
    Fixture f;
    ggml_tensor* out = f.pool.columns(GGML_TYPE_F32, 4, 6);
    ggml_tensor* in = ggml_new_tensor_2d(f.pool.ctx(), GGML_TYPE_F32, 4, 3);
    f.pool.allocate();
    const auto allocate = [&](std::initializer_list<size_t> firsts) {
        csm::Graph graph(f.device, 16);
        for (const size_t first : firsts) {
            // every second row
            ggml_tensor* rows =
                ggml_view_2d(graph.ctx(), out, 4, first < 2 ? 3 : 2, 2 * out->nb[1], out->nb[1] * first);
            graph.add(ggml_cpy(
                graph.ctx(),
                ggml_exp(graph.ctx(), ggml_view_2d(graph.ctx(), in, 4, rows->ne[1], in->nb[1], 0)), rows));
        }
        graph.allocate();
    };
    allocate({0, 1});
    allocate({1, 2});
    CHECK_THROWS(allocate({0, 2}), std::logic_error, "leaves it open whether");
}

TEST(several_devices_are_numbered) {
    CHECK_THROWS(csm::Device::open("gpu:9999", 1), csm::BackendError, "gpu:9999");
    CHECK_THROWS(csm::Device::open("gpu:x", 1), csm::BackendError, "is not known");
}

TEST(two_sorted_halves_make_a_sorted_whole) {
    constexpr int kN = 64, kColumns = 3;
    Fixture f;
    ggml_tensor* x = ggml_new_tensor_2d(f.pool.ctx(), GGML_TYPE_F32, kN, kColumns);
    f.pool.allocate();
    csm::Graph graph(f.device, 64);
    ggml_tensor* order = csm::build_merged_order(graph, x);
    graph.add_output(order);
    graph.allocate();
    const auto sort = [&](const std::vector<float>& values) {
        csm::upload(x, values.data(), ggml_nbytes(x));
        graph.compute();
        std::vector<int32_t> got(values.size());
        csm::download(order, got.data(), ggml_nbytes(order));
        return got;
    };
    for (uint32_t round = 0; round < 20; ++round) {
        std::vector<float> values(kN * kColumns);
        for (uint32_t i = 0; i < values.size(); ++i) {
            // many equal ones in some rounds
            const float u = csm::uniform(7, round, i);
            values[i] = round % 2 == 0 ? u : std::floor(u * 6.0f);
        }
        const std::vector<int32_t> got = sort(values);
        for (size_t c = 0; c < kColumns; ++c) {
            const float* column = &values[c * kN];
            std::vector<int32_t> taken(got.begin() + static_cast<int>(c) * kN,
                                       got.begin() + static_cast<int>(c + 1) * kN),
                all(kN);
            for (size_t i = 1; i < taken.size(); ++i) {
                CHECK(column[taken[i - 1]] >= column[taken[i]]);
                // of equal ones those of the first half; within a half it is as the device sorts
                if (column[taken[i - 1]] == column[taken[i]])
                    CHECK(taken[i - 1] < kN / 2 || taken[i] >= kN / 2);
            }
            std::iota(all.begin(), all.end(), 0);
            std::sort(taken.begin(), taken.end());
            CHECK(taken == all);
        }
    }
    // what is no number has no place; what is there are codes all the same
    for (const int32_t code :
         sort(std::vector<float>(kN * kColumns, std::numeric_limits<float>::quiet_NaN())))
        CHECK(code >= 0 && code < kN);
}
