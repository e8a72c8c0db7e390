#include "coordinator/tls_identity.h"

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certificate.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::MakeTestCertificate;
using ::testing::HasSubstr;

class TlsIdentityTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = ::testing::TempDir() + "/tls_identity_test_" + name;
    std::ofstream(path) << text;
    return path;
  }
  static std::string Error(const absl::StatusOr<TlsIdentity>& identity) {
    return std::string(identity.status().message());
  }
};

TEST_F(TlsIdentityTest, ReadsAPair) {
  const TlsIdentity made = MakeTestCertificate();
  const auto read =
      LoadTlsIdentity(Write("c.pem", made.certificate_chain), Write("k.pem", made.private_key));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->certificate_chain, made.certificate_chain);
  EXPECT_EQ(read->private_key, made.private_key);
  EXPECT_FALSE(read->empty());
}

TEST_F(TlsIdentityTest, MistakesNameTheFile) {
  const TlsIdentity made = MakeTestCertificate();
  const std::string certificate = Write("c.pem", made.certificate_chain);
  const std::string key = Write("k.pem", made.private_key);
  const std::string junk = Write("junk.pem", "junk\n");
  EXPECT_THAT(Error(LoadTlsIdentity("/no/such/file", key)), HasSubstr("/no/such/file"));
  EXPECT_THAT(Error(LoadTlsIdentity(junk, key)), HasSubstr("junk.pem: there is no PEM cert"));
  EXPECT_THAT(Error(LoadTlsIdentity(certificate, junk)), HasSubstr("junk.pem: there is no PEM pr"));
  // The files swapped.
  EXPECT_THAT(Error(LoadTlsIdentity(key, certificate)), HasSubstr("k.pem: there is no PEM cert"));
  const std::string other = Write("other.pem", MakeTestCertificate().private_key);
  EXPECT_THAT(Error(LoadTlsIdentity(certificate, other)), HasSubstr("the key is not that of"));
  const std::string old = Write("old.pem", MakeTestCertificate(-60).certificate_chain);
  EXPECT_THAT(Error(LoadTlsIdentity(old, key)), HasSubstr("old.pem"));
}

}  // namespace
}  // namespace dovetail::coordinator
