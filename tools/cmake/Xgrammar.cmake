# xgrammar (Apache-2.0): grammars for structured output. tools/fetch_xgrammar puts its sources there; they are built here
# and not by their own CMakeLists.txt, which wants Python and link-time optimisation for its default.
set(XGRAMMAR_DIR ${CMAKE_SOURCE_DIR}/build/sources/xgrammar-0.2.8)
if(NOT EXISTS ${XGRAMMAR_DIR}/.sha256)
  message(FATAL_ERROR "xgrammar's sources are not in ${XGRAMMAR_DIR}: run tools/fetch_xgrammar (tools/build does)")
endif()

set(XGRAMMAR_SOURCES
  compiled_grammar.cc config.cc converter_ext/cohere.cc converter_ext/deepseek.cc converter_ext/glm.cc
  converter_ext/kimi_k3.cc converter_ext/minimax.cc converter_ext/minimax_m3.cc converter_ext/qwen.cc
  earley_parser.cc fsm.cc fsm_builder.cc grammar.cc grammar_builder.cc grammar_compiler.cc grammar_functor.cc
  grammar_matcher.cc grammar_parser.cc grammar_printer.cc json_schema_converter.cc lark_converter.cc
  regex_converter.cc structural_tag.cc suffix_automata.cc support/logging.cc support/recursion_guard.cc
  testing.cc tokenizer_info.cc)
list(TRANSFORM XGRAMMAR_SOURCES PREPEND ${XGRAMMAR_DIR}/cpp/)
add_library(xgrammar STATIC EXCLUDE_FROM_ALL ${XGRAMMAR_SOURCES})
target_include_directories(xgrammar SYSTEM PUBLIC ${XGRAMMAR_DIR}/include ${XGRAMMAR_DIR}/3rdparty/picojson
  ${XGRAMMAR_DIR}/3rdparty/dlpack/include)
target_compile_definitions(xgrammar PUBLIC XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0)
target_compile_options(xgrammar PRIVATE -w -O2)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Debian's clang refuses its variants of types that are declared only. The fuzzers link what g++ makes of it, without
  # sanitizers: those of the two compilers do not go together.
  set_target_properties(xgrammar PROPERTIES CXX_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/tools/cmake/with_gcc)
elseif(DOVETAIL_SANITIZE)
  # Memory errors are looked for in it too, undefined behaviour is its authors' affair.
  string(REPLACE ",undefined" "" XGRAMMAR_SANITIZE "${DOVETAIL_SANITIZE}")
  target_compile_options(xgrammar PRIVATE -fsanitize=${XGRAMMAR_SANITIZE})
endif()
target_link_libraries(xgrammar PUBLIC Threads::Threads)
