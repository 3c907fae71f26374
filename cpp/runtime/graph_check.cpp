#include "runtime/graph_check.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "runtime/error.h"

namespace csm {

namespace {

// What a node does with some bytes of a tensor that has its memory already: all of begin..end, or, where
// there is a stride, `row` bytes from begin on and again after each stride.
struct Access {
    int node;
    bool writes;
    size_t begin, end;
    size_t stride = 0, row = 0;

    Access(int n, bool w, const ggml_tensor* t)
        : node(n), writes(w), begin(t->view_offs), end(t->view_offs + ggml_nbytes(t)) {
        const size_t bytes = ggml_row_size(t->type, t->ne[0]);
        const bool rows = t->ne[2] == 1 && t->ne[3] == 1 && t->nb[0] == ggml_type_size(t->type);
        if (!rows || bytes >= t->nb[1] || begin % t->nb[1] + bytes > t->nb[1]) return;
        stride = t->nb[1];
        row = bytes;
    }

    bool meets(const Access& other) const {
        if (!(writes || other.writes) || begin >= other.end || other.begin >= end) return false;
        if (stride == 0 || stride != other.stride) return true;
        const size_t mine = begin % stride, theirs = other.begin % stride;
        return mine < theirs + other.row && theirs < mine + row;
    }
    bool covers(const Access& other) const { return stride == 0 && begin <= other.begin && end >= other.end; }
};

// The nodes of a graph by number, and what each is computed from.
class Sources {
 public:
    explicit Sources(ggml_cgraph* graph) {
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) number_[ggml_graph_node(graph, i)] = i;
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            std::vector<int> sources;
            for (const ggml_tensor* source : ggml_graph_node(graph, i)->src) {
                const auto found = number_.find(source);
                if (found != number_.end()) sources.push_back(found->second);
            }
            of_.push_back(std::move(sources));
        }
        seen_.resize(of_.size());
    }

    // Whether `later` is computed from `earlier`, by way of others or not.
    bool reach(int later, int earlier) {
        std::fill(seen_.begin() + earlier, seen_.begin() + later + 1, false);
        std::vector<int> open{later};
        while (!open.empty()) {
            const int node = open.back();
            open.pop_back();
            if (node == earlier) return true;
            for (const int source : of_[static_cast<size_t>(node)]) {
                if (source < earlier || seen_[static_cast<size_t>(source)]) continue;
                seen_[static_cast<size_t>(source)] = true;
                open.push_back(source);
            }
        }
        return false;
    }

 private:
    std::unordered_map<const ggml_tensor*, int> number_;
    std::vector<std::vector<int>> of_;
    std::vector<bool> seen_;
};

const ggml_tensor* root_of(const ggml_tensor* t) {
    return t->view_src ? t->view_src : t;
}

}  // namespace

void check_dependencies(ggml_cgraph* graph) {
    std::map<const ggml_tensor*, std::vector<Access>> accesses;
    const auto in_pool = [](const ggml_tensor* root) { return root->buffer != nullptr; };
    const auto note = [&](int node, bool writes, const ggml_tensor* t) {
        accesses[root_of(t)].emplace_back(node, writes, t);
    };
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (is_view(node)) continue;
        const bool writes = in_pool(root_of(node));
        for (const ggml_tensor* source : node->src) {
            // what a node writes into is among its sources
            if (source != nullptr && in_pool(root_of(source)) &&
                !(writes && root_of(source) == root_of(node)))
                note(i, false, source);
        }
        if (writes) note(i, true, node);
    }
    Sources sources(graph);
    for (const auto& [root, list] : accesses) {
        if (std::none_of(list.begin(), list.end(), [](const Access& access) { return access.writes; }))
            continue;
        for (size_t later = 0; later < list.size(); ++later) {
            for (size_t earlier = later; earlier-- > 0;) {
                if (list[earlier].node == list[later].node || !list[earlier].meets(list[later])) continue;
                if (!sources.reach(list[later].node, list[earlier].node)) {
                    const ggml_tensor* a = ggml_graph_node(graph, list[earlier].node);
                    const ggml_tensor* b = ggml_graph_node(graph, list[later].node);
                    throw std::logic_error(cat("a graph leaves it open whether ", ggml_op_desc(a), " (node ",
                                               list[earlier].node, ") or ", ggml_op_desc(b), " (node ",
                                               list[later].node, ") uses a tensor first"));
                }
                // what was used before that write was compared with it
                if (list[earlier].writes && list[earlier].covers(list[later])) break;
            }
        }
    }
}

}  // namespace csm
