#include "coordinator/tls_identity.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstdint>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace dovetail::coordinator {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* value) const { Free(value); }
};
void FreeBio(BIO* bio) { BIO_free(bio); }
using BioPtr = std::unique_ptr<BIO, Freer<BIO, FreeBio>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509, X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;

// A key with a passphrase is refused: there is nobody to ask.
int NoPassphrase(char*, int, int, void*) { return 0; }

BioPtr Reader(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::Status Bad(const std::string& path, absl::string_view problem) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", problem));
}

}  // namespace

absl::StatusOr<TlsIdentity> LoadTlsIdentity(const std::string& certificate_path,
                                            const std::string& key_path) {
  TlsIdentity identity;
  DT_ASSIGN_OR_RETURN(identity.certificate_chain, ReadFile(certificate_path, kMaxFileBytes));
  DT_ASSIGN_OR_RETURN(identity.private_key, ReadFile(key_path, kMaxFileBytes));
  const X509Ptr certificate(
      PEM_read_bio_X509(Reader(identity.certificate_chain).get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) return Bad(certificate_path, "there is no PEM certificate in it");
  const KeyPtr key(
      PEM_read_bio_PrivateKey(Reader(identity.private_key).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    return Bad(key_path, "there is no PEM private key in it (keys with a passphrase are not read)");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Bad(key_path, absl::StrCat("the key is not that of ", certificate_path));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return Bad(certificate_path, "the certificate has expired");
  }
  return identity;
}

}  // namespace dovetail::coordinator
