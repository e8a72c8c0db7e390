# The project's own target helpers. Sources are listed, dependencies are declared, nothing is globbed:
# a folder that is not in DEPS cannot be linked, and tools/check compares #includes with the layers.

add_library(dovetail_options INTERFACE)
target_compile_options(dovetail_options INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wno-unused-parameter -Wno-missing-field-initializers
  -ffp-contract=off -fno-fast-math)
target_include_directories(dovetail_options INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(dovetail_options INTERFACE Threads::Threads)
if(DOVETAIL_SANITIZE)
  target_compile_options(dovetail_options INTERFACE -fsanitize=${DOVETAIL_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(dovetail_options INTERFACE -fsanitize=${DOVETAIL_SANITIZE})
endif()

if(DOVETAIL_FUZZERS)  # coverage of the libraries, not only of the fuzz targets
  target_compile_options(dovetail_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
add_custom_target(tsan_tests)  # what tools/test --sanitizers builds with TSan
add_custom_target(fuzzers)

# dovetail_library(NAME SRCS ... HDRS ... DEPS ... PRIVATE_DEPS ...)
function(dovetail_library NAME)
  cmake_parse_arguments(A "" "" "SRCS;HDRS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(A_SRCS)
    add_library(${NAME} STATIC ${A_SRCS} ${A_HDRS})
    target_link_libraries(${NAME} PUBLIC dovetail_options ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS})
  else()
    add_library(${NAME} INTERFACE)
    target_link_libraries(${NAME} INTERFACE dovetail_options ${A_DEPS})
  endif()
endfunction()

# dovetail_isa_object(NAME SRC FLAGS ...): one translation unit with its own instruction set.
function(dovetail_isa_object NAME)
  cmake_parse_arguments(A "" "SRC" "FLAGS" ${ARGN})
  add_library(${NAME} OBJECT ${A_SRC})
  target_link_libraries(${NAME} PRIVATE dovetail_options)
  target_compile_options(${NAME} PRIVATE ${A_FLAGS})
endfunction()

function(dovetail_binary NAME)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${NAME} ${A_SRCS})
  target_link_libraries(${NAME} PRIVATE dovetail_options ${A_DEPS})
endfunction()

# dovetail_test(NAME SRCS ... DEPS ... LABELS unit [tsan]): a GoogleTest program; it finds real data through
# DOVETAIL_DATA (default: ../shared/data beside the checkout) and skips with a reason where that is absent.
function(dovetail_test NAME)
  cmake_parse_arguments(A "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${NAME} ${A_SRCS})
  target_link_libraries(${NAME} PRIVATE dovetail_options ${A_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${NAME} COMMAND ${NAME})
  if("tsan" IN_LIST A_LABELS)
    add_dependencies(tsan_tests ${NAME})
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  if(DOVETAIL_SANITIZE)
    math(EXPR A_TIMEOUT "4 * ${A_TIMEOUT}")
  endif()
  set_tests_properties(${NAME} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT}
    ENVIRONMENT "DOVETAIL_DATA=${CMAKE_SOURCE_DIR}/../shared/data;DOVETAIL_SOURCE=${CMAKE_SOURCE_DIR};DOVETAIL_BIN=${CMAKE_BINARY_DIR}/bin")
endfunction()

function(dovetail_benchmark NAME)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${NAME} ${A_SRCS})
  target_link_libraries(${NAME} PRIVATE dovetail_options ${A_DEPS} benchmark::benchmark_main)
endfunction()

# dovetail_fuzzer(NAME SRCS ... DEPS ...): a libFuzzer target, only with -DDOVETAIL_FUZZERS=ON and clang.
function(dovetail_fuzzer NAME)
  if(NOT DOVETAIL_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${NAME} ${A_SRCS})
  target_link_libraries(${NAME} PRIVATE dovetail_options ${A_DEPS})
  target_compile_options(${NAME} PRIVATE -fsanitize=fuzzer)
  target_link_options(${NAME} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers ${NAME})
endfunction()
