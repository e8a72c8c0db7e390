// A fresh certificate for 127.0.0.1 and localhost, signed by itself, and its key; both PEM.
#ifndef DOVETAIL_TESTS_TESTING_TEST_CERTIFICATE_H_
#define DOVETAIL_TESTS_TESTING_TEST_CERTIFICATE_H_

#include "coordinator/tls_identity.h"

namespace dovetail::testing {

// Valid from an hour ago until `valid_seconds` from now, which may be negative.
coordinator::TlsIdentity MakeTestCertificate(int valid_seconds = 3600);

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_TEST_CERTIFICATE_H_
