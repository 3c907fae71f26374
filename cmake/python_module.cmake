# The extension module csm_ggml._core and, for shared builds, ggml's libraries beside it.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
if(NOT DEFINED pybind11_DIR)
    # Outside of a build frontend nobody has put pybind11's CMake files on the search path.
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
        OUTPUT_VARIABLE pybind11_cmake_dir
        OUTPUT_STRIP_TRAILING_WHITESPACE
        ERROR_QUIET)
    if(pybind11_cmake_dir)
        set(pybind11_DIR "${pybind11_cmake_dir}" CACHE PATH "pybind11's CMake files")
    endif()
endif()
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 2.13 CONFIG REQUIRED)

file(GLOB binding_sources CONFIGURE_DEPENDS cpp/bindings/*.cpp cpp/bindings/*.h)
pybind11_add_module(_core MODULE ${binding_sources})
target_link_libraries(_core PRIVATE csm_core)
if(UNIX AND NOT APPLE)
    # A static ggml must stay invisible to other extension modules of the process, which may carry their own.
    target_link_options(_core PRIVATE "LINKER:--exclude-libs,ALL")
endif()

set(installed _core)
if(CSM_GGML_LIBRARIES)
    list(APPEND installed ${CSM_GGML_LIBRARIES})
    add_dependencies(_core ${CSM_GGML_LIBRARIES})
    if(APPLE)
        set_target_properties(_core PROPERTIES INSTALL_RPATH "@loader_path")
    else()
        set_target_properties(_core PROPERTIES INSTALL_RPATH "$ORIGIN")
    endif()
endif()
install(TARGETS ${installed}
    LIBRARY DESTINATION csm_ggml COMPONENT python
    RUNTIME DESTINATION csm_ggml COMPONENT python)

if(CSM_INPLACE)
    set(package_folder "${PROJECT_SOURCE_DIR}/python/csm_ggml")
    foreach(target IN LISTS installed)
        add_custom_command(TARGET _core POST_BUILD
            COMMAND "${CMAKE_COMMAND}" -E copy_if_different "$<TARGET_FILE:${target}>" "${package_folder}")
    endforeach()
endif()
