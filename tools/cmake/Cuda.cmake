# CUDA kernels are compiled wherever nvcc is, and nowhere else: nothing that runs without a GPU needs them.
option(DOVETAIL_CUDA "Compile CUDA kernels where nvcc is" ON)
set(DOVETAIL_CUDA_ARCHITECTURES "90" CACHE STRING "compute capabilities to compile for; tools/release has them all")
option(DOVETAIL_CUDA_SM75_FORMS "kernels for later cards do what 7.5 does (kernels/cuda/device_sm75.inl.h), to check that there" OFF)

if(DOVETAIL_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
else()
  set(CMAKE_CUDA_COMPILER "")  # as where there is none
endif()
if(CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_ARCHITECTURES ${DOVETAIL_CUDA_ARCHITECTURES})
  if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")  # which CMake 3.25 does not know
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

# dovetail_cuda_object(NAME SRCS ...): kernels whose floats are what is written: no contraction, no approximation.
function(dovetail_cuda_object NAME)
  cmake_parse_arguments(A "" "" "SRCS" ${ARGN})
  add_library(${NAME} OBJECT ${A_SRCS})
  target_include_directories(${NAME} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${NAME} PRIVATE -fmad=false --expt-relaxed-constexpr -Xfatbin=-compress-all -Werror=all-warnings
    $<$<BOOL:${DOVETAIL_CUDA_SM75_FORMS}>:-DDOVETAIL_SM75_FORMS> -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers)
endfunction()
