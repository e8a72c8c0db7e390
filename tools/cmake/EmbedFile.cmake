# cmake -DINPUT=FILE -DOUTPUT=FILE.cc -DNAME=kSymbol -P EmbedFile.cmake: a file's bytes as a C++ array.
file(READ "${INPUT}" hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE "${OUTPUT}" "#include <cstddef>
extern const unsigned char ${NAME}[];
extern const size_t ${NAME}Size;
const unsigned char ${NAME}[] = {${bytes}};
const size_t ${NAME}Size = sizeof(${NAME});
")
