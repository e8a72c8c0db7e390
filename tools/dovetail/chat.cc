#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "base/status_macros.h"
#include "dovetail/v1/inference.grpc.pb.h"
#include "tools/dovetail/client.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"

namespace dovetail::tools {
namespace {

struct ChatFlags {
  ClientFlags client;
  std::string model;
  std::string message;
  std::string system;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> max_tokens;
  int timeout_s = 600;
};

// A conversation with one server; keeps the history.
class Conversation {
 public:
  Conversation(const ChatFlags& flags, const std::shared_ptr<grpc::Channel>& channel)
      : flags_(flags), stub_(v1::InferenceService::NewStub(channel)) {
    request_.set_model(flags.model);
    if (flags.temperature) request_.mutable_sampling()->set_temperature(*flags.temperature);
    if (flags.top_p) request_.mutable_sampling()->set_top_p(*flags.top_p);
    if (flags.seed) request_.mutable_sampling()->set_seed(*flags.seed);
    if (flags.max_tokens) request_.set_max_tokens(*flags.max_tokens);
    if (!flags.system.empty()) Add("system", flags.system);
  }

  // Sends `message`, prints the answer as it comes, and remembers both.
  absl::Status Say(const std::string& message) {
    Add("user", message);
    grpc::ClientContext context;
    PrepareCall(flags_.client, std::chrono::seconds(flags_.timeout_s), &context);
    auto reader = stub_->Generate(&context, request_);
    v1::GenerateResponse response;
    std::string answer;
    while (reader->Read(&response)) {
      std::fwrite(response.text().data(), 1, response.text().size(), stdout);
      std::fflush(stdout);
      answer += response.text();
    }
    std::printf("\n");
    DT_RETURN_IF_ERROR(ClientStatus(reader->Finish(), flags_.client));
    Add("assistant", answer);
    return absl::OkStatus();
  }

 private:
  void Add(const std::string& role, const std::string& content) {
    v1::ChatMessage* message = request_.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }

  const ChatFlags& flags_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  v1::GenerateRequest request_;
};

int Chat(const ChatFlags& flags) {
  const auto channel = Dial(flags.client);
  if (!channel.ok()) return ReportError(channel.status());
  Conversation conversation(flags, *channel);
  if (!flags.message.empty()) {
    const absl::Status status = conversation.Say(flags.message);
    return status.ok() ? 0 : ReportError(status);
  }
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (terminal) std::printf("Type a message; Ctrl-D ends.\n");
  std::string line;
  while (true) {
    if (terminal) std::printf("> ");
    std::fflush(stdout);
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    const absl::Status status = conversation.Say(line);
    if (!status.ok()) return ReportError(status);
  }
  if (terminal) std::printf("\n");
  return 0;
}

}  // namespace

void AddChat(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app->add_subcommand("chat", "Talk to a running server");
  AddClientFlags(command, &flags->client);
  command->add_option("--model", flags->model, "which one, of a server with several");
  command->add_option("--message,-m", flags->message, "say this, print the answer, and end");
  command->add_option("--system", flags->system, "the system message");
  command->add_option("--temperature", flags->temperature, "0 is greedy; default 1");
  command->add_option("--top-p", flags->top_p, "default 1");
  command->add_option("--seed", flags->seed, "default: drawn by the server");
  command->add_option("--max-tokens", flags->max_tokens, "default: until the context ends");
  command->add_option("--timeout", flags->timeout_s, "seconds for one answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->callback([flags, exit_code] { *exit_code = Chat(*flags); });
}

}  // namespace dovetail::tools
