// tokenize MODEL: every line of standard input is a text as a JSON string, every line of the output
// {"ids": [...], "text": what they decode to} or {"error": ...}. Special tokens in the text are
// parsed; none is added.
#include <iostream>
#include <string>

#include "model/gguf/gguf_file.h"
#include "model/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenize MODEL.gguf < TEXTS.jsonl\n";
    return 2;
  }
  const auto file = dovetail::model::GgufFile::Open(argv[1]);
  if (!file.ok()) {
    std::cerr << file.status().message() << "\n";
    return 1;
  }
  const auto tokenizer = dovetail::model::Tokenizer::Create(**file);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().message() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const auto text = nlohmann::json::parse(line).get<std::string>();
    const auto ids = (*tokenizer)->Encode(text, {.add_special = false, .parse_special = true});
    nlohmann::json answer;
    if (ids.ok()) {
      answer["ids"] = *ids;
      answer["text"] = (*tokenizer)->Decode(*ids, /*special=*/true);
    } else {
      answer["error"] = std::string(ids.status().message());
    }
    std::cout << answer.dump() << "\n";
  }
  return 0;
}
