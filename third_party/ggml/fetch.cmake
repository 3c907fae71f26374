# Gets the pinned ggml source. No ggml code lives in the repository: a package index serves it inside a source
# distribution, so that a machine which can `pip install` anything can build this package too.

set(CSM_GGML_PIN "${CMAKE_CURRENT_LIST_DIR}/requirements.txt")
set(CSM_GGML_BUNDLED_DIR "${CMAKE_CURRENT_LIST_DIR}/src")

# Sets ${result} to TRUE when ${folder} holds a source tree that csm_ggml_fetch made from today's pin.
function(csm_ggml_is_current folder result)
    set(${result} FALSE PARENT_SCOPE)
    if(EXISTS "${folder}/PIN")
        file(STRINGS "${folder}/PIN" got)
        file(STRINGS "${CSM_GGML_PIN}" expected)
        if(got STREQUAL expected)
            set(${result} TRUE PARENT_SCOPE)
        endif()
    endif()
endfunction()

# Downloads the pinned source distribution and unpacks what a build needs of ggml into ${folder}. pip refuses an
# archive whose hash is not the pinned one. Uses ${CMAKE_BINARY_DIR} for the download.
function(csm_ggml_fetch folder)
    find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
    set(work "${CMAKE_BINARY_DIR}/ggml-download")
    file(REMOVE_RECURSE "${work}" "${folder}")
    file(MAKE_DIRECTORY "${work}")

    message(STATUS "Fetching the pinned ggml source with pip")
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-input
                --no-deps --no-binary libggml-python --require-hashes
                --requirement "${CSM_GGML_PIN}" --dest "${work}"
        RESULT_VARIABLE failed
        OUTPUT_VARIABLE log
        ERROR_VARIABLE log)
    if(failed)
        message(FATAL_ERROR
            "Could not fetch ggml: '${Python_EXECUTABLE} -m pip download' ended with ${failed}:\n${log}\n"
            "The build needs pip and a package index that serves what ${CSM_GGML_PIN} names. Without one, "
            "pass -DCSM_GGML_SOURCE_DIR=<ggml checkout>, or -DCSM_USE_SYSTEM_GGML=ON for an installed ggml, "
            "or install from the source distribution of csm-ggml, which carries ggml.")
    endif()

    file(GLOB archive "${work}/*.tar.gz")
    # Upstream's tests, examples and documents are two thirds of the files and no part of the library.
    file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${work}"
        PATTERNS "*/ggml/CMakeLists.txt" "*/ggml/LICENSE" "*/ggml/AUTHORS" "*/ggml/ggml.pc.in"
                 "*/ggml/cmake/*" "*/ggml/include/*" "*/ggml/src/*")
    file(GLOB source "${work}/*/ggml")
    file(RENAME "${source}" "${folder}")
    file(REMOVE_RECURSE "${work}")
    # Last, so that an interrupted fetch is never taken for a whole one.
    file(COPY_FILE "${CSM_GGML_PIN}" "${folder}/PIN")
endfunction()
