#include "tests/unit/coordinator/http_test_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {
namespace {

// The tiny model's tokens: three special ones, then the bytes in order.
int32_t TokenOfByte(char c) { return 3 + static_cast<unsigned char>(c); }

char LetterAt(size_t position) { return static_cast<char>('a' + position % 26); }

template <typename T>
T Require(absl::StatusOr<T> value) {
  if (!value.ok()) ADD_FAILURE() << value.status();
  DT_CHECK(value.ok());
  return *std::move(value);
}

}  // namespace

TestServer::TestServer(TestServerOptions options) {
  char pattern[] = "/tmp/dovetail_http_XXXXXX";
  DT_CHECK(::mkdtemp(pattern) != nullptr);
  directory = pattern;
  const std::string path = directory + "/tiny.gguf";
  testing::TinyLlamaOptions tiny;
  tiny.context = kTestContext;
  testing::WriteTinyLlama(path, tiny);
  file = Require(model::GgufFile::Open(path));
  config = Require(model::LoadModelConfig(*file));
  tokenizer = Require(model::Tokenizer::Create(*file));
  chat_template =
      Require(model::ChatTemplate::Parse("{% for m in messages %}<|im_start|>{{ m['role'] }} {{ "
                                         "m['content'] }}<|im_end|>{% endfor %}"));

  EngineOptions engine_options;
  engine_options.shape = {.max_rows = 64,
                          .max_sequences = options.max_sequences,
                          .max_logit_rows = options.max_sequences,
                          .context_length = kTestContext,
                          .num_kv_blocks = options.max_sequences * kTestContext / kKvBlockTokens,
                          .vocab_size = config.vocab_size};
  engine_options.vocab_size = config.vocab_size;
  engine_options.hidden_size = config.hidden_size;
  engine_options.chunk_size = 32;
  engine_options.max_queue = options.max_queue;
  workers = std::make_shared<testing::FakeWorkers>(engine_options.shape, config.vocab_size,
                                                   config.hidden_size);
  workers->set_next_token(
      [](absl::Span<const int32_t> tokens) { return TokenOfByte(LetterAt(tokens.size())); });
  engine = std::make_unique<Engine>(engine_options);
  if (options.with_pipeline) engine->SetPipeline(workers->MakePipeline());
  generation = std::make_unique<GenerationService>(kTestModel, &config, tokenizer.get(),
                                                   chat_template.get(), engine.get(), kTestContext,
                                                   /*max_new_tokens=*/0);
  generation->set_metrics(&metrics);
  HttpApi api;
  api.keys = options.keys;
  api.metrics = [this] {
    MetricsText text;
    WriteRequestMetrics({{kTestModel, &metrics}}, &text);
    return text.text();
  };
  ModelEntry entry;
  entry.name = kTestModel;
  entry.aliases = {"test-alias"};
  entry.generation = generation.get();
  entry.engine = engine.get();
  entry.created = 7;
  entry.context_length = kTestContext;
  entry.facts.chat_template = chat_template->source();
  entry.system_fingerprint = "dovetail-cis1-f16";
  std::vector<ModelEntry> entries = {entry};
  for (const std::string& name : options.more_models) {
    entry.name = name;
    entry.aliases.clear();
    entries.push_back(entry);
  }
  models = ModelDirectory(std::move(entries));
  api.models = &models;
  api.health = [this] {
    return ready ? HealthReport{true, "ok", ""} : HealthReport{false, "loading", "40 %"};
  };
  http = Require(HttpServer::Start(options.http, std::move(api)));
}

TestServer::~TestServer() {
  if (http != nullptr) http->Stop();
  engine.reset();  // before what it borrows
  std::filesystem::remove_all(directory);
}

bool TestServer::WaitIdle(absl::Duration timeout) const {
  for (const absl::Time end = absl::Now() + timeout; absl::Now() < end;) {
    const EngineStats stats = engine->stats();
    if (stats.running == 0 && stats.waiting == 0 && stats.kv_blocks_used == 0) return true;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return false;
}

bool TestServer::EndsEarly() const {
  while (engine->stats().generated_tokens < 150) {
    if (WaitIdle(absl::Milliseconds(10))) return true;
    workers->Release(1);
  }
  return false;
}

bool TestServer::WaitRequests(int count) const {
  for (const absl::Time end = absl::Now() + absl::Seconds(5); absl::Now() < end;) {
    const EngineStats stats = engine->stats();
    if (stats.running + stats.waiting == count) return true;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return false;
}

std::string TestServer::Letters(int prompt_tokens, int num_tokens) {
  std::string letters;
  for (int i = 0; i < num_tokens; ++i) letters += LetterAt(prompt_tokens + i);
  return letters;
}

RawClient::RawClient(int port) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  DT_CHECK(fd_ >= 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
}

void RawClient::Send(const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // the server may have refused and closed already
    sent += static_cast<size_t>(n);
  }
}

bool RawClient::ReadMore(absl::Time until) {
  if (ended_) return false;
  const int64_t left = absl::ToInt64Milliseconds(until - absl::Now());
  pollfd ready = {fd_, POLLIN, 0};
  if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
  char buffer[16384];
  const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
  if (n <= 0) {
    ended_ = true;
    return false;
  }
  received_.append(buffer, static_cast<size_t>(n));
  return true;
}

std::string RawClient::ReadUntil(const std::string& wanted, absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  while (received_.find(wanted) == std::string::npos && ReadMore(until)) {
  }
  return std::exchange(received_, "");
}

RawResponse RawClient::ReadResponse(absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  RawResponse response;
  size_t head_end;
  while ((head_end = received_.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore(until)) return response;
  }
  const std::vector<std::string> lines = absl::StrSplit(received_.substr(0, head_end), "\r\n");
  received_.erase(0, head_end + 4);
  const std::vector<std::string> words = absl::StrSplit(lines[0], absl::MaxSplits(' ', 2));
  if (words.size() < 2 || !absl::SimpleAtoi(words[1], &response.status)) return response;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::pair<std::string, std::string> field =
        absl::StrSplit(lines[i], absl::MaxSplits(": ", 1));
    response.headers[absl::AsciiStrToLower(field.first)] = field.second;
  }
  if (response.headers.count("transfer-encoding") > 0) {
    while (true) {
      size_t line_end;
      while ((line_end = received_.find("\r\n")) == std::string::npos) {
        if (!ReadMore(until)) return response;
      }
      const size_t size = std::stoul(received_.substr(0, line_end), nullptr, 16);
      while (received_.size() < line_end + 2 + size + 2) {
        if (!ReadMore(until)) return response;
      }
      response.body += received_.substr(line_end + 2, size);
      received_.erase(0, line_end + 2 + size + 2);
      if (size > 0) continue;
      response.ended = true;
      return response;
    }
  }
  const auto length = response.headers.find("content-length");
  if (length == response.headers.end()) {
    if (response.status != 204) {
      while (ReadMore(until)) {
      }
    }
    response.body = std::exchange(received_, "");
    response.ended = true;
    return response;
  }
  const size_t size = std::stoul(length->second);
  while (received_.size() < size && ReadMore(until)) {
  }
  response.ended = received_.size() >= size;
  response.body = received_.substr(0, size);
  received_.erase(0, size);
  return response;
}

bool RawClient::WaitClosed(absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  while (ReadMore(until)) {
  }
  return ended_;
}

void RawClient::ShutdownSend() { ::shutdown(fd_, SHUT_WR); }

void RawClient::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::string PostBytes(const std::string& path, const std::string& body,
                      const std::string& headers) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(),
                      "\r\n", headers, "\r\n", body);
}

RawResponse Ask(int port, const std::string& request) {
  RawClient client(port);
  client.Send(request);
  return client.ReadResponse();
}

RawResponse Post(int port, const std::string& path, const std::string& body) {
  return Ask(port, PostBytes(path, body));
}

}  // namespace dovetail::coordinator
