#include "runtime/row_dot.h"

#include <array>
#include <mutex>

#include "ggml-backend.h"
#include "ggml-cpu.h"

#if defined(CSM_GGML_BACKEND_DL)
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif
#endif

namespace csm {

namespace {

using Traits = const ggml_type_traits_cpu* (*)(ggml_type);

#if defined(CSM_GGML_BACKEND_DL)
// The registry does not offer the function, but any that it offers lies in the library that is in use, beside
// it.
Traits find_traits() {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (dev == nullptr) return nullptr;
    void* neighbour =
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_backend_set_n_threads");
    if (neighbour == nullptr) return nullptr;
    constexpr const char* kName = "ggml_get_type_traits_cpu";
#if defined(_WIN32)
    HMODULE library = nullptr;
    if (!GetModuleHandleExA(
            GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
            static_cast<LPCSTR>(neighbour), &library))
        return nullptr;
    return reinterpret_cast<Traits>(reinterpret_cast<void*>(GetProcAddress(library, kName)));
#else
    Dl_info info;
    if (dladdr(neighbour, &info) == 0) return nullptr;
    // The handle is kept: ggml does not unload its backends either.
    void* library = dlopen(info.dli_fname, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    return library != nullptr ? reinterpret_cast<Traits>(dlsym(library, kName)) : nullptr;
#endif
}
#else
Traits find_traits() {
    return ggml_get_type_traits_cpu;
}
#endif

}  // namespace

const RowDot* row_dot(ggml_type type) {
    static std::array<RowDot, GGML_TYPE_COUNT> dots;
    static std::once_flag once;
    std::call_once(once, [] {
        const Traits traits = find_traits();
        if (traits == nullptr) return;
        for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
            const auto t = static_cast<ggml_type>(i);
            if (!ggml_is_quantized(t)) continue;
            const ggml_type_traits_cpu* matrix = traits(t);
            if (matrix->vec_dot == nullptr) continue;
            const auto quantize = traits(matrix->vec_dot_type)->from_float;
            if (quantize == nullptr || !ggml_is_quantized(matrix->vec_dot_type)) continue;
            dots[static_cast<size_t>(i)] = {matrix->vec_dot_type, quantize, matrix->vec_dot};
        }
    });
    const RowDot& dot = dots[static_cast<size_t>(type)];
    return dot.dot != nullptr ? &dot : nullptr;
}

}  // namespace csm
