"""The declarations of all functions and numbers of OpenSSL that greentls uses, as in OpenSSL's headers, and of all
callbacks that OpenSSL calls.

To use another function, declare it here first: ``lib`` has only what is declared, and ``_native`` is compiled from this
list. ``void *`` replaces types that cryptography's binding may not declare, and pointers to pointers of such types.
"""

from __future__ import annotations

import re
import zlib

# fmt: off
_TYPES = (
    "BIO", "BIO_METHOD", "DH", "EVP_CIPHER", "EVP_PKEY", "SSL", "SSL_CIPHER", "SSL_CTX", "SSL_METHOD", "SSL_SESSION",
    "X509", "X509_CRL", "X509_STORE", "X509_STORE_CTX", "X509_VERIFY_PARAM",
)
# fmt: on

FUNCTIONS = """
long BIO_ctrl(BIO *, int, long, void *);
int BIO_free(BIO *);
BIO *BIO_new(const BIO_METHOD *);
BIO *BIO_new_mem_buf(const void *, int);
int BIO_read(BIO *, void *, int);
const BIO_METHOD *BIO_s_mem(void);
int BIO_write(BIO *, const void *, int);
void *BUF_MEM_new(void);
void CRYPTO_free(void *, const char *, int);
void *CRYPTO_malloc(size_t, const char *, int);
void DH_free(DH *);
void ERR_clear_error(void);
unsigned long ERR_get_error(void);
const char *ERR_lib_error_string(unsigned long);
void ERR_new(void);
unsigned long ERR_peek_error(void);
const char *ERR_reason_error_string(unsigned long);
void ERR_set_error(int, int, const char *, ...);
int EVP_CipherInit_ex2(void *, const EVP_CIPHER *, const unsigned char *, const unsigned char *, int, const void *);
int EVP_MAC_CTX_set_params(void *, const void *);
void EVP_PKEY_CTX_free(void *);
void *EVP_PKEY_CTX_new_from_name(void *, const char *, const char *);
int EVP_PKEY_eq(const void *, const void *);
int EVP_PKEY_export(const void *, int, void *, void *);
void EVP_PKEY_free(EVP_PKEY *);
int EVP_PKEY_fromdata(void *, EVP_PKEY **, int, void *);
int EVP_PKEY_fromdata_init(void *);
const char *EVP_PKEY_get0_type_name(const void *);
int EVP_PKEY_get_size(const void *);
int EVP_PKEY_set_type(EVP_PKEY *, int);
int EVP_PKEY_todata(const void *, int, void *);
int EVP_PKEY_up_ref(void *);
const EVP_CIPHER *EVP_get_cipherbyname(const char *);
void OPENSSL_sk_free(void *);
int OPENSSL_sk_num(const void *);
void *OPENSSL_sk_value(const void *, int);
void *OSSL_LIB_CTX_new(void);
void OSSL_PARAM_free(void *);
int OSSL_PROVIDER_add_builtin(void *, const char *, void *);
void *OSSL_PROVIDER_load(void *, const char *);
DH *PEM_read_bio_DHparams(BIO *, DH **, int (*)(char *, int, int, void *), void *);
const char *OpenSSL_version(int);
int SSL_CIPHER_get_bits(const SSL_CIPHER *, int *);
const char *SSL_CIPHER_get_name(const SSL_CIPHER *);
const char *SSL_CIPHER_get_version(const SSL_CIPHER *);
long SSL_CTX_callback_ctrl(SSL_CTX *, int, void *);
long SSL_CTX_ctrl(SSL_CTX *, int, long, void *);
void SSL_CTX_free(SSL_CTX *);
X509_STORE *SSL_CTX_get_cert_store(const SSL_CTX *);
int SSL_CTX_load_verify_locations(SSL_CTX *, const char *, const char *);
SSL_CTX *SSL_CTX_new(const SSL_METHOD *);
void SSL_CTX_sess_set_get_cb(SSL_CTX *, SSL_SESSION *(*)(SSL *, const unsigned char *, int, int *));
void SSL_CTX_sess_set_new_cb(SSL_CTX *, int (*)(SSL *, SSL_SESSION *));
void SSL_CTX_sess_set_remove_cb(SSL_CTX *, void (*)(SSL_CTX *, SSL_SESSION *));
void SSL_CTX_set_allow_early_data_cb(SSL_CTX *, int (*)(SSL *, void *), void *);
int SSL_CTX_set_alpn_protos(SSL_CTX *, const unsigned char *, unsigned int);
void SSL_CTX_set_alpn_select_cb(SSL_CTX *, int (*)(SSL *, const unsigned char **, unsigned char *,
    const unsigned char *, unsigned int, void *), void *);
void SSL_CTX_set_cert_cb(SSL_CTX *, int (*)(SSL *, void *), void *);
void SSL_CTX_set_cert_verify_callback(SSL_CTX *, int (*)(X509_STORE_CTX *, void *), void *);
int SSL_CTX_set_cipher_list(SSL_CTX *, const char *);
int SSL_CTX_set_ciphersuites(SSL_CTX *, const char *);
void SSL_CTX_set_client_hello_cb(SSL_CTX *, int (*)(SSL *, int *, void *), void *);
void SSL_CTX_set_info_callback(SSL_CTX *, void (*)(const SSL *, int, int));
void SSL_CTX_set_keylog_callback(SSL_CTX *, void (*)(const SSL *, const char *));
int SSL_CTX_set_max_early_data(SSL_CTX *, uint32_t);
void SSL_CTX_set_msg_callback(SSL_CTX *, void (*)(int, int, int, const void *, size_t, SSL *, void *));
int SSL_CTX_set_num_tickets(SSL_CTX *, size_t);
uint64_t SSL_CTX_set_options(SSL_CTX *, uint64_t);
void SSL_CTX_set_post_handshake_auth(SSL_CTX *, int);
void SSL_CTX_set_psk_client_callback(SSL_CTX *, unsigned int (*)(SSL *, const char *, char *, unsigned int,
    unsigned char *, unsigned int));
void SSL_CTX_set_psk_server_callback(SSL_CTX *, unsigned int (*)(SSL *, const char *, unsigned char *, unsigned int));
int SSL_CTX_set_session_id_context(SSL_CTX *, const unsigned char *, unsigned int);
long SSL_CTX_set_timeout(SSL_CTX *, long);
int SSL_CTX_set_tlsext_ticket_key_evp_cb(SSL_CTX *, void *);
void SSL_CTX_set_verify(SSL_CTX *, int, int (*)(int, X509_STORE_CTX *));
int SSL_CTX_use_PrivateKey(SSL_CTX *, EVP_PKEY *);
int SSL_CTX_use_certificate(SSL_CTX *, X509 *);
int SSL_CTX_use_psk_identity_hint(SSL_CTX *, const char *);
void SSL_SESSION_free(SSL_SESSION *);
void SSL_SESSION_get0_alpn_selected(const SSL_SESSION *, const unsigned char **, size_t *);
const SSL_CIPHER *SSL_SESSION_get0_cipher(const SSL_SESSION *);
const char *SSL_SESSION_get0_hostname(const SSL_SESSION *);
const char *SSL_SESSION_get0_id_context(const SSL_SESSION *, unsigned int *);
const char *SSL_SESSION_get_id(const SSL_SESSION *, unsigned int *);
uint32_t SSL_SESSION_get_max_early_data(const SSL_SESSION *);
int SSL_SESSION_get_protocol_version(const SSL_SESSION *);
unsigned long SSL_SESSION_get_ticket_lifetime_hint(const SSL_SESSION *);
long SSL_SESSION_get_time(const SSL_SESSION *);
long SSL_SESSION_get_timeout(const SSL_SESSION *);
int SSL_SESSION_has_ticket(const SSL_SESSION *);
int SSL_SESSION_is_resumable(const SSL_SESSION *);
int SSL_SESSION_up_ref(SSL_SESSION *);
size_t SSL_client_hello_get0_ciphers(SSL *, const unsigned char **);
int SSL_client_hello_get0_ext(SSL *, unsigned int, const unsigned char **, size_t *);
size_t SSL_client_hello_get0_session_id(SSL *, const unsigned char **);
long SSL_ctrl(SSL *, int, long, void *);
int SSL_do_handshake(SSL *);
int SSL_export_keying_material(SSL *, unsigned char *, size_t, const char *, size_t,
    const unsigned char *, size_t, int);
void SSL_free(SSL *);
void SSL_get0_alpn_selected(const SSL *, const unsigned char **, unsigned int *);
X509_VERIFY_PARAM *SSL_get0_param(SSL *);
void *SSL_get0_verified_chain(const SSL *);
X509 *SSL_get1_peer_certificate(const SSL *);
SSL_SESSION *SSL_get1_session(SSL *);
void *SSL_get1_supported_ciphers(SSL *);
X509 *SSL_get_certificate(const SSL *);
void *SSL_get_ciphers(const SSL *);
void *SSL_get_client_ciphers(const SSL *);
size_t SSL_get_client_random(const SSL *, unsigned char *, size_t);
const SSL_CIPHER *SSL_get_current_cipher(const SSL *);
int SSL_get_early_data_status(const SSL *);
int SSL_get_error(const SSL *, int);
int SSL_get_ex_data_X509_STORE_CTX_idx(void);
size_t SSL_get_finished(const SSL *, void *, size_t);
void *SSL_get_peer_cert_chain(const SSL *);
size_t SSL_get_peer_finished(const SSL *, void *, size_t);
int SSL_get_security_level(const SSL *);
const char *SSL_get_servername(const SSL *, int);
SSL_SESSION *SSL_get_session(const SSL *);
int SSL_get_shutdown(const SSL *);
int SSL_get_verify_mode(const SSL *);
long SSL_get_verify_result(const SSL *);
const char *SSL_get_version(const SSL *);
const char *SSL_group_to_name(SSL *, int);
SSL *SSL_new(SSL_CTX *);
int SSL_pending(const SSL *);
int SSL_read(SSL *, void *, int);
int SSL_read_early_data(SSL *, void *, size_t, size_t *);
int SSL_session_reused(const SSL *);
SSL_CTX *SSL_set_SSL_CTX(SSL *, SSL_CTX *);
void SSL_set_accept_state(SSL *);
void SSL_set_bio(SSL *, BIO *, BIO *);
void SSL_set_connect_state(SSL *);
void SSL_set_info_callback(SSL *, void (*)(const SSL *, int, int));
int SSL_set_session(SSL *, SSL_SESSION *);
int SSL_set_session_id_context(SSL *, const unsigned char *, unsigned int);
void SSL_set_shutdown(SSL *, int);
void SSL_set_verify(SSL *, int, int (*)(int, X509_STORE_CTX *));
int SSL_shutdown(SSL *);
int SSL_verify_client_post_handshake(SSL *);
int SSL_version(const SSL *);
int SSL_write(SSL *, const void *, int);
int SSL_write_early_data(SSL *, const void *, size_t, size_t *);
const SSL_METHOD *TLS_method(void);
void X509_CRL_free(X509_CRL *);
X509 *X509_OBJECT_get0_X509(const void *);
void X509_STORE_CTX_free(X509_STORE_CTX *);
X509_VERIFY_PARAM *X509_STORE_CTX_get0_param(const X509_STORE_CTX *);
void *X509_STORE_CTX_get1_chain(const X509_STORE_CTX *);
void *X509_STORE_CTX_get_ex_data(const X509_STORE_CTX *, int);
int X509_STORE_CTX_init(X509_STORE_CTX *, X509_STORE *, X509 *, void *);
X509_STORE_CTX *X509_STORE_CTX_new(void);
int X509_STORE_CTX_set_default(X509_STORE_CTX *, const char *);
void X509_STORE_CTX_set_error(X509_STORE_CTX *, int);
int X509_STORE_add_cert(X509_STORE *, X509 *);
int X509_STORE_add_crl(X509_STORE *, X509_CRL *);
void *X509_STORE_get0_objects(const X509_STORE *);
int X509_STORE_set_flags(X509_STORE *, unsigned long);
int X509_VERIFY_PARAM_set1(X509_VERIFY_PARAM *, const X509_VERIFY_PARAM *);
int X509_VERIFY_PARAM_set1_host(X509_VERIFY_PARAM *, const char *, size_t);
int X509_VERIFY_PARAM_set1_ip(X509_VERIFY_PARAM *, const unsigned char *, size_t);
void X509_VERIFY_PARAM_set_auth_level(X509_VERIFY_PARAM *, int);
void X509_VERIFY_PARAM_set_hostflags(X509_VERIFY_PARAM *, unsigned int);
int X509_check_ca(X509 *);
void X509_free(X509 *);
int X509_verify_cert(X509_STORE_CTX *);
const char *X509_verify_cert_error_string(long);
void *d2i_PUBKEY(void *, const unsigned char **, long);
EVP_PKEY *d2i_PrivateKey_bio(BIO *, EVP_PKEY **);
SSL_SESSION *d2i_SSL_SESSION(SSL_SESSION **, const unsigned char **, long);
X509_CRL *d2i_X509_CRL_bio(BIO *, X509_CRL **);
X509 *d2i_X509_bio(BIO *, X509 **);
int i2d_SSL_SESSION(const SSL_SESSION *, unsigned char **);
int i2d_X509_bio(BIO *, X509 *);
"""

# Functions that OpenSSL 3.0 lacks or does not export. They are looked up when they are first called.
NEWER = """
void OSSL_ERR_STATE_free(void *);
void *OSSL_ERR_STATE_new(void);
void OSSL_ERR_STATE_restore(const void *);
void OSSL_ERR_STATE_save(void *);
const char *SSL_get0_group_name(SSL *);
void X509_VERIFY_PARAM_set1_host_input_validation(X509_VERIFY_PARAM *, int (*)(const char *, size_t));
void ossl_statem_send_fatal(SSL *, int);
"""

# Macros in the headers.
HEADERS = """
long BIO_get_mem_data(BIO *, char **);
void ERR_put_error(int, int, int, const char *, int);
void OPENSSL_free(void *);
void *OPENSSL_malloc(size_t);
long SSL_CTX_add_extra_chain_cert(SSL_CTX *, X509 *);
long SSL_CTX_set1_curves_list(SSL_CTX *, const char *);
long SSL_CTX_set_max_proto_version(SSL_CTX *, int);
long SSL_CTX_set_min_proto_version(SSL_CTX *, int);
long SSL_CTX_set_mode(SSL_CTX *, long);
long SSL_CTX_set_session_cache_mode(SSL_CTX *, long);
void SSL_CTX_set_tlsext_servername_callback(SSL_CTX *, int (*)(SSL *, int *, void *));
long SSL_CTX_set_tlsext_status_cb(SSL_CTX *, int (*)(SSL *, void *));
long SSL_CTX_set_tmp_dh(SSL_CTX *, DH *);
long SSL_clear_mode(SSL *, long);
X509 *SSL_get_peer_certificate(SSL *);
long SSL_get_tlsext_status_ocsp_resp(SSL *, unsigned char **);
void SSL_set_tlsext_host_name(SSL *, const char *);
long SSL_set_tlsext_status_ocsp_resp(SSL *, unsigned char *, int);
long SSL_set_tlsext_status_type(SSL *, long);
void sk_X509_free(void *);
int sk_X509_num(const void *);
X509 *sk_X509_value(const void *, int);
"""

# Callbacks: OpenSSL gets Python functions of these names.
CALLBACKS = """
int any_name(const char *, size_t);
void count_messages(const SSL *, int, int);
int on_alpn(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *);
int on_certificate(SSL *, void *);
int on_client_hello(SSL *, int *, void *);
int on_early_data(SSL *, void *);
SSL_SESSION *on_get_session(SSL *, const unsigned char *, int, int *);
void on_keylog(const SSL *, const char *);
void on_message(int, int, int, const void *, size_t, SSL *, void *);
int on_new_session(SSL *, SSL_SESSION *);
int on_ocsp_at_a_client(SSL *, void *);
int on_ocsp_at_a_server(SSL *, void *);
unsigned int on_psk_client(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int);
unsigned int on_psk_server(SSL *, const char *, unsigned char *, unsigned int);
void on_remove_session(SSL_CTX *, SSL_SESSION *);
int on_servername(SSL *, int *, void *);
int on_ticket_key(SSL *, unsigned char *, unsigned char *, void *, void *, int);
int on_verify(X509_STORE_CTX *, void *);

int on_export(void *, int, void *, void *);
int on_find(void *, void *);
void on_free(void *);
const void *on_gettable(void *);
int on_has(const void *, int);
int on_import_ec(void *, int, void *);
int on_import_ed25519(void *, int, void *);
int on_import_rsa(void *, int, void *);
int on_init(void *, const char *, void *, void *);
int on_match(const void *, const void *, int);
void *on_new(void *, const char *);
const char *on_operation_name(int);
int on_provider_init(void *, void *, void **, void **);
const void *on_query(void *, int, int *);
int on_set_params(void *, void *);
const void *on_settable(void *, void *);
int on_sign(void *, unsigned char *, size_t *, size_t, const unsigned char *, size_t);
const void *on_types(int);
"""

# fmt: off
NUMBERS = {
    "SSL_CB_ACCEPT_EXIT": 0x2002, "SSL_CB_CONNECT_EXIT": 0x1002,
    "SSL_ERROR_SYSCALL": 5, "SSL_ERROR_WANT_READ": 2, "SSL_ERROR_ZERO_RETURN": 6,
    "SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER": 2, "SSL_MODE_AUTO_RETRY": 4, "SSL_MODE_RELEASE_BUFFERS": 16,
    "SSL_OP_NO_ANTI_REPLAY": 1 << 24, "SSL_OP_NO_COMPRESSION": 1 << 17, "SSL_OP_NO_RENEGOTIATION": 1 << 30,
    "SSL_OP_NO_TICKET": 1 << 14,
    "SSL_RECEIVED_SHUTDOWN": 2, "SSL_SENT_SHUTDOWN": 1, "SSL_VERIFY_PEER": 1, "X509_V_ERR_CERT_REJECTED": 28,
}
# fmt: on


def _pointers(declarations: str) -> dict[str, str]:
    """Returns the type of a pointer to each function, by name."""
    found = re.findall(r"^(\w.*?)(\w+)\((.*?)\);$", declarations, re.MULTILINE | re.DOTALL)
    return {name: f"{returned}(*)({arguments})" for returned, name, arguments in found}


SIGNATURES = _pointers(FUNCTIONS + NEWER)
CALLBACK_TYPES = _pointers(CALLBACKS)

# The source of _native. If its GREENTLS_DECLARATIONS is NUMBER, it was compiled from these declarations.
_CDEF = "".join(
    (
        *(f"typedef ... {name};\n" for name in _TYPES),
        *(f"#define {name} ...\n" for name in NUMBERS),
        *(FUNCTIONS, HEADERS, f'extern "Python" {{{CALLBACKS}}}'),
    )
)
NUMBER = zlib.crc32(_CDEF.encode())
CDEF = f"{_CDEF}\n#define GREENTLS_DECLARATIONS {NUMBER}"
SOURCE = f"""
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/core.h>
#include <openssl/dh.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "OpenSSL 3.0 or newer is needed"
#endif
#define GREENTLS_DECLARATIONS {NUMBER}
"""
