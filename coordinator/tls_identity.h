// TlsIdentity: the certificate and the key with which both servers show who they are, read and
// checked once. Pure functions.
#ifndef DOVETAIL_COORDINATOR_TLS_IDENTITY_H_
#define DOVETAIL_COORDINATOR_TLS_IDENTITY_H_

#include <string>

#include "absl/status/statusor.h"

namespace dovetail::coordinator {

struct TlsIdentity {
  std::string certificate_chain;  // PEM, the server's own certificate first; empty: no TLS
  std::string private_key;        // PEM, without a passphrase

  bool empty() const { return certificate_chain.empty(); }
};

// Reads both files. InvalidArgument: one is not PEM, the key is not the certificate's, or the
// certificate has expired. Messages name the path.
absl::StatusOr<TlsIdentity> LoadTlsIdentity(const std::string& certificate_path,
                                            const std::string& key_path);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_TLS_IDENTITY_H_
