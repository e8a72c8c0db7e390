// Who gets in: API keys, TLS, and requests that two readers could understand in two ways.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/test_certificate.h"
#include "tests/unit/coordinator/http_test_server.h"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kBody[] = R"({"prompt":"abc","max_tokens":3})";

TestServerOptions WithKeys() {
  TestServerOptions options;
  options.keys = ApiKeys({{"alice", "sk-alice-1234"}, {"bob", "sk-bob-12345"}});
  return options;
}

std::string GetBytes(const std::string& path, const std::string& headers = "") {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\n", headers, "\r\n");
}

TEST(HttpSecurityTest, EveryRouteButHealthNeedsAKey) {
  TestServer server(WithKeys());
  EXPECT_EQ(Ask(server.port(), GetBytes("/health")).status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/no/such/route"}) {
    const RawResponse refused = Ask(server.port(), GetBytes(path));
    EXPECT_EQ(refused.status, 401) << path;
    EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
    const json error = json::parse(refused.body).at("error");
    EXPECT_EQ(error.at("code"), "invalid_api_key");
    EXPECT_EQ(error.at("type"), "authentication_error");
  }
  EXPECT_EQ(Ask(server.port(), PostBytes("/v1/completions", kBody)).status, 401);
  EXPECT_EQ(server.engine->stats().prompt_tokens, 0u);
}

TEST(HttpSecurityTest, KeysInBothForms) {
  TestServer server(WithKeys());
  for (const char* header :
       {"Authorization: Bearer sk-alice-1234\r\n", "authorization: bearer sk-bob-12345\r\n",
        "x-api-key: sk-bob-12345\r\n"}) {
    EXPECT_EQ(Ask(server.port(), PostBytes("/v1/completions", kBody, header)).status, 200)
        << header;
  }
  for (const char* header :
       {"Authorization: Bearer sk-alice-123\r\n", "Authorization: Basic sk-alice-1234\r\n",
        "Authorization: Bearer\r\n", "x-api-key: \r\n",
        "Authorization: Bearer wrong-key\r\nx-api-key: sk-bob-12345\r\n"}) {
    const RawResponse refused = Ask(server.port(), PostBytes("/v1/completions", kBody, header));
    EXPECT_EQ(refused.status, 401) << header;
    EXPECT_EQ(refused.body.find("sk-alice"), std::string::npos) << refused.body;
  }
}

TEST(HttpSecurityTest, ABodyWithoutAKeyIsNotRead) {
  TestServer server(WithKeys());
  RawClient client(server.port());
  client.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 401);  // none of the body was sent
  EXPECT_TRUE(client.WaitClosed());
}

TEST(HttpSecurityTest, AConnectionHasTheTenantOfEachRequest) {
  TestServer server(WithKeys());
  RawClient client(server.port());
  client.Send(PostBytes("/v1/completions", kBody, "x-api-key: sk-bob-12345\r\n"));
  EXPECT_EQ(client.ReadResponse().status, 200);
  client.Send(PostBytes("/v1/completions", kBody));
  EXPECT_EQ(client.ReadResponse().status, 401);
}

TEST(HttpSecurityTest, RequestsThatCanBeReadInTwoWaysAreRefused) {
  TestServer server;
  const std::string smuggled = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string post = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n";
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  for (const std::string& bytes : {
           // Content-Length and Transfer-Encoding, in both orders.
           post + "Content-Length: 6\r\n" + chunked + "\r\n0\r\n\r\n" + smuggled,
           post + chunked + "Content-Length: 6\r\n\r\n0\r\n\r\n" + smuggled,
           // Two lengths, even the same.
           post + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + smuggled,
           post + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + smuggled,
           post + "Content-Length: 0, 0\r\n\r\n" + smuggled,
           post + "Content-Length: +0\r\n\r\n" + smuggled,
           post + "Content-Length: -1\r\n\r\n" + smuggled,
           post + "Content-Length: 0x10\r\n\r\n" + smuggled,
           post + "Content-Length: 99999999999999999999\r\n\r\n" + smuggled,
           // Two encodings, and such as hide one.
           post + chunked + chunked + "\r\n0\r\n\r\n" + smuggled,
           post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled,
           post + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
           // Chunk sizes that overflow or are signed.
           post + chunked + "\r\nfffffffffffffffff\r\n" + smuggled,
           post + chunked + "\r\n-1\r\n" + smuggled,
           // Whom it is for.
           std::string("GET /health HTTP/1.1\r\n\r\n") + smuggled,
           std::string("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") + smuggled,
           "POST /v1/completions HTTP/1.0\r\n" + chunked + "\r\n0\r\n\r\n" + smuggled,
       }) {
    RawClient client(server.port());
    client.Send(bytes);
    const std::string all = client.ReadUntil("no such bytes", absl::Seconds(3));
    const size_t second = all.find("HTTP/1.1 ", 1);
    // One answer, an error, and then the end: what follows is never taken for a request.
    EXPECT_TRUE(all.find(" 400 ") < 16 || all.find(" 413 ") < 16 || all.find(" 415 ") < 16)
        << bytes << "\n->\n"
        << all;
    EXPECT_EQ(second, std::string::npos) << bytes << "\n->\n" << all;
    EXPECT_TRUE(client.WaitClosed()) << bytes;
  }
  EXPECT_EQ(Ask(server.port(), GetBytes("/health")).status, 200);
}

// A client that speaks TLS and trusts one certificate.
class TlsClient {
 public:
  TlsClient(int port, const std::string& trusted) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval timeout = {.tv_sec = 5};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    context_ = SSL_CTX_new(TLS_client_method());
    BIO* text = BIO_new_mem_buf(trusted.data(), static_cast<int>(trusted.size()));
    X509* certificate = PEM_read_bio_X509(text, nullptr, nullptr, nullptr);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), certificate);
    X509_free(certificate);
    BIO_free(text);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    ssl_ = SSL_new(context_);
    SSL_set1_host(ssl_, "localhost");
    SSL_set_fd(ssl_, fd_);
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    ::close(fd_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  SSL* ssl() { return ssl_; }
  bool Handshake() { return SSL_connect(ssl_) == 1; }
  void Send(const std::string& bytes) {
    EXPECT_EQ(SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())),
              static_cast<int>(bytes.size()));
  }
  // Until `wanted` is among the bytes, or the server's end.
  std::string ReadUntil(const std::string& wanted) {
    std::string text;
    char buffer[4096];
    while (text.find(wanted) == std::string::npos) {
      const int n = SSL_read(ssl_, buffer, sizeof(buffer));
      if (n <= 0) break;
      text.append(buffer, static_cast<size_t>(n));
    }
    return text;
  }
  // True if the server says that nothing follows, which a cut connection does not.
  bool ReadsCleanEnd() {
    char byte;
    const int n = SSL_read(ssl_, &byte, 1);
    return n <= 0 && SSL_get_error(ssl_, n) == SSL_ERROR_ZERO_RETURN;
  }

 private:
  int fd_ = -1;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
};

TestServerOptions WithTls() {
  TestServerOptions options;
  options.http.tls = testing::MakeTestCertificate();
  options.http.header_timeout = absl::Milliseconds(500);
  return options;
}

TEST(HttpSecurityTest, TlsCarriesRequestsAndStreams) {
  const TestServerOptions options = WithTls();
  TestServer server(options);
  TlsClient client(server.port(), options.http.tls.certificate_chain);
  ASSERT_TRUE(client.Handshake());
  client.Send(PostBytes("/v1/completions", kBody));
  EXPECT_THAT(client.ReadUntil("\"cached_tokens\""), StartsWith("HTTP/1.1 200 OK"));
  client.ReadUntil("}}}");
  // A stream over the same connection.
  client.Send(PostBytes("/v1/completions", R"({"prompt":"abc","max_tokens":100,"stream":true})"));
  EXPECT_THAT(client.ReadUntil("data: [DONE]\n\n\r\n0\r\n\r\n"), HasSubstr("event-stream"));
  client.Send(GetBytes("/health", "Connection: close\r\n"));
  EXPECT_THAT(client.ReadUntil("\"ok\"}"), HasSubstr("200 OK"));
  EXPECT_TRUE(client.ReadsCleanEnd());
}

TEST(HttpSecurityTest, OldTlsIsRefused) {
  const TestServerOptions options = WithTls();
  TestServer server(options);
  TlsClient client(server.port(), options.http.tls.certificate_chain);
  SSL_set_security_level(client.ssl(), 0);
  SSL_set_max_proto_version(client.ssl(), TLS1_1_VERSION);
  EXPECT_FALSE(client.Handshake());
}

TEST(HttpSecurityTest, WhoDoesNotSpeakTlsIsClosedAndHarmsNobody) {
  const TestServerOptions options = WithTls();
  TestServer server(options);
  RawClient plain(server.port());
  plain.Send(GetBytes("/health"));
  EXPECT_TRUE(plain.WaitClosed());
  RawClient silent(server.port());
  EXPECT_TRUE(silent.WaitClosed(absl::Seconds(3)));  // by the header timeout
  TlsClient client(server.port(), options.http.tls.certificate_chain);
  ASSERT_TRUE(client.Handshake());
  client.Send(GetBytes("/health"));
  EXPECT_THAT(client.ReadUntil("\"ok\"}"), HasSubstr("200 OK"));
}

TEST(HttpSecurityTest, AClientThatLeavesATlsStreamIsCancelled) {
  const TestServerOptions options = WithTls();
  TestServer server(options);
  server.workers->Hold();
  {
    TlsClient client(server.port(), options.http.tls.certificate_chain);
    ASSERT_TRUE(client.Handshake());
    client.Send(PostBytes("/v1/completions", R"({"prompt":"abc","max_tokens":200,"stream":true})"));
    ASSERT_TRUE(server.WaitRequests(1));
  }
  EXPECT_TRUE(server.EndsEarly());
}

}  // namespace
}  // namespace dovetail::coordinator
