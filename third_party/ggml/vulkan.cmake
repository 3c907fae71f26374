# ggml's Vulkan backend takes minutes to compile, and says only then that the headers are too old. Checked before.

find_package(Vulkan COMPONENTS glslc QUIET)
if(NOT Vulkan_FOUND)
    message(FATAL_ERROR "GGML_VULKAN needs the Vulkan headers, loader and the shader compiler glslc: install the Vulkan SDK, "
        "or the packages libvulkan-dev and glslc (found: headers '${Vulkan_INCLUDE_DIR}', library '${Vulkan_LIBRARY}', "
        "glslc '${Vulkan_GLSLC_EXECUTABLE}')")
endif()
# ggml asks it for what it can compile, and takes a program that does not start for one that can do everything.
execute_process(COMMAND "${Vulkan_GLSLC_EXECUTABLE}" --version RESULT_VARIABLE glslc_failed
    OUTPUT_QUIET ERROR_VARIABLE glslc_error)
if(glslc_failed)
    message(FATAL_ERROR "The shader compiler ${Vulkan_GLSLC_EXECUTABLE} does not start (${glslc_failed}): ${glslc_error}")
endif()
set(vulkan_needed 1.3.272)
# FindVulkan says the version only in newer versions of CMake.
file(STRINGS "${Vulkan_INCLUDE_DIR}/vulkan/vulkan_core.h" vulkan_lines REGEX "^#define VK_HEADER_VERSION")
string(REGEX MATCH "VK_HEADER_VERSION ([0-9]+)" matched "${vulkan_lines}")
set(vulkan_patch "${CMAKE_MATCH_1}")
string(REGEX MATCH "VK_MAKE_API_VERSION\\([0-9]+, *([0-9]+), *([0-9]+)," matched "${vulkan_lines}")
set(vulkan_version "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${vulkan_patch}")
if(vulkan_version VERSION_LESS vulkan_needed)
    message(FATAL_ERROR "The Vulkan headers in ${Vulkan_INCLUDE_DIR} are version ${vulkan_version}, ggml needs ${vulkan_needed} "
        "or newer: install a newer Vulkan SDK or libvulkan-dev, and name it with -DVulkan_INCLUDE_DIR=")
endif()
if(DEFINED ENV{VULKAN_SDK})
    list(APPEND CMAKE_PREFIX_PATH "$ENV{VULKAN_SDK}")
endif()
find_package(SPIRV-Headers CONFIG QUIET)
if(NOT SPIRV-Headers_FOUND)
    message(FATAL_ERROR "GGML_VULKAN needs SPIRV-Headers: install the package spirv-headers, or add where they are to "
        "CMAKE_PREFIX_PATH")
endif()
message(STATUS "Vulkan: headers ${vulkan_version}, ${Vulkan_GLSLC_EXECUTABLE}")
