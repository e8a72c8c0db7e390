// render_template TEMPLATE NOW: reads a JSON context on standard input and prints what the chat
// template in the file TEMPLATE makes of it at the time NOW (seconds since 1970). With --lines,
// every line of the input is a context, and every line of the output {"text": ...} or {"error":
// ...}.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "absl/status/statusor.h"
#include "model/chat_template/chat_template.h"
#include "nlohmann/json.hpp"

int main(int argc, char** argv) {
  const bool lines = argc > 1 && std::string(argv[1]) == "--lines";
  const int first = lines ? 2 : 1;
  if (argc != first + 2) {
    std::cerr << "usage: render_template [--lines] TEMPLATE NOW < CONTEXT.json\n";
    return 2;
  }
  std::ifstream in(argv[first], std::ios::binary);
  const std::string source(std::istreambuf_iterator<char>(in), {});
  const std::time_t now = std::atoll(argv[first + 1]);
  const auto chat_template = dovetail::model::ChatTemplate::Parse(source);
  const auto render = [&](const std::string& context) -> absl::StatusOr<std::string> {
    if (!chat_template.ok()) return chat_template.status();
    return (*chat_template)->Render(nlohmann::ordered_json::parse(context), now);
  };
  if (lines) {
    for (std::string line; std::getline(std::cin, line);) {
      const absl::StatusOr<std::string> text = render(line);
      nlohmann::json answer;
      if (text.ok()) {
        answer["text"] = *text;
      } else {
        answer["error"] = std::string(text.status().message());
      }
      std::cout << answer.dump() << "\n";
    }
    return 0;
  }
  const std::string context(std::istreambuf_iterator<char>(std::cin), {});
  const absl::StatusOr<std::string> text = render(context);
  if (!text.ok()) {
    std::cerr << text.status().message() << "\n";
    return 1;
  }
  std::cout << *text;
  return 0;
}
