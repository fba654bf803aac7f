//! HTTP requests: TLS, redirects, and the token that only the hub itself gets.

use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::error::Error;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// Longest wait for a connection, and for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest wait for a body. A larger one is resumed where it broke off; so a connection that went silent is not waited
/// for without end.
const PATIENCE_FOR_BODY: Duration = Duration::from_secs(300);

/// Sends requests to one hub and wherever it redirects them.
#[derive(Debug)]
pub(super) struct Transport {
    agent: Agent,
    token: Option<String>,
    origin: String,
}

/// Whether a body is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    /// From this byte on.
    Get(u64),
}

impl Transport {
    pub(super) fn new(endpoint: &str, token: Option<&str>) -> Result<Self, Error> {
        let origin = origin(endpoint);
        let Some(origin) = origin.filter(|_| endpoint.starts_with("http://") || endpoint.starts_with("https://"))
        else {
            let problem = format!("\"{endpoint}\" is not the address of a hub");
            return Err(Error::Hub {
                name: "HF_ENDPOINT".to_owned(),
                problem,
                advice: "such as https://huggingface.co",
            });
        };
        let mut tls = TlsConfig::builder().root_certs(match env::var("SSL_CERT_FILE") {
            Ok(path) if !path.is_empty() => RootCerts::new_with_certs(&certificates(&path)?),
            _ => RootCerts::WebPki,
        });
        if endpoint.starts_with("https://") {
            supported()?;
        }
        // A provider without C: graviola is Rust, and assembler that the Rust compiler translates.
        tls = tls.unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()));
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(PATIENCE))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_recv_body(Some(PATIENCE_FOR_BODY))
            .user_agent(concat!("ragtrainer/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, token: token.map(str::to_owned), origin })
    }

    /// Sends a request and follows redirects. A `HEAD` stops at a redirect to another host: it says already what is
    /// there.
    pub(super) fn send(&self, url: &str, method: Method) -> Result<Response<Body>, ureq::Error> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&url, method)?;
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let (true, Some(location)) = (response.status().is_redirection(), location) else { return Ok(response) };
            let next = joined(&url, location);
            if method == Method::Head && origin(&next) != origin(&url) {
                return Ok(response);
            }
            url = next;
        }
        Err(ureq::Error::TooManyRedirects)
    }

    fn once(&self, url: &str, method: Method) -> Result<Response<Body>, ureq::Error> {
        let mut request = match method {
            Method::Head => self.agent.head(url),
            Method::Get(_) => self.agent.get(url),
        };
        // Compressed bytes would be neither as many nor of the checksum that was announced.
        request = request.header("accept-encoding", "identity");
        if let Method::Get(start @ 1..) = method {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| origin(url).as_ref() == Some(&self.origin)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call()
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?).to_ascii_lowercase())
}

/// The address that a redirect leads to (RFC 3986, 5.2, without dots).
fn joined(url: &str, location: &str) -> String {
    let scheme_end = url.find("://").map_or(0, |at| at + 3);
    let authority_end = url[scheme_end..].find('/').map_or(url.len(), |at| scheme_end + at);
    if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}{location}", &url[..scheme_end.saturating_sub(2)])
    } else if location.starts_with('/') {
        format!("{}{location}", &url[..authority_end])
    } else {
        let path_end = url[..].rfind('/').filter(|at| *at >= authority_end);
        format!("{}/{location}", &url[..path_end.unwrap_or(authority_end)])
    }
}

/// Whether an address begins with a scheme (RFC 3986, 3.1), as an absolute one does.
fn has_scheme(address: &str) -> bool {
    let Some((scheme, _)) = address.split_once("://") else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn certificates(path: &str) -> Result<Vec<Certificate<'static>>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    let certificates: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let problem = format!("{path} holds no certificate");
        return Err(Error::Hub { name: "SSL_CERT_FILE".to_owned(), problem, advice: "unset it, or name a PEM file" });
    }
    Ok(certificates)
}

/// # Errors
/// The processor lacks what graviola's assembler is written in; it would panic.
fn supported() -> Result<(), Error> {
    #[cfg(target_arch = "x86_64")]
    if !(is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("adx")
        && is_x86_feature_detected!("avx2"))
    {
        return Err(Error::Hub {
            name: "https".to_owned(),
            problem: "encryption needs a processor with AES, PCLMULQDQ, BMI1, ADX and AVX2".to_owned(),
            advice: "download the model with another program, and set HF_HUB_OFFLINE=1 or give the folder's path",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        for (location, expected) in [
            ("https://cdn.io/x?y=1", "https://cdn.io/x?y=1"),
            ("//cdn.io/x", "http://cdn.io/x"),
            ("/api/x?u=http%3A", "http://hub:81/api/x?u=http%3A"),
            ("x", "http://hub:81/org/x"),
            ("/blob/x?u=http://y", "http://hub:81/blob/x?u=http://y"),
            ("x?u=http://y", "http://hub:81/org/x?u=http://y"),
        ] {
            assert_eq!(joined("http://hub:81/org/name", location), expected);
        }
        assert_eq!(joined("http://hub", "/x"), "http://hub/x");
        assert_ne!(origin("http://hub:81/x"), origin("https://hub:81/x"));
        assert_ne!(origin("http://hub:81/x"), origin("http://hub:82/x"));
    }

    #[test]
    fn an_endpoint_is_an_address() {
        for wrong in ["huggingface.co", "", "ftp://x", "https://"] {
            let error = Transport::new(wrong, None).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
    }

    /// A connection needs suites of both versions of TLS, and a generator that works on this processor.
    #[test]
    fn the_provider_of_encryption_works_here() {
        if supported().is_ok() {
            let provider = rustls_graviola::default_provider();
            let mut bytes = [0; 32];
            assert!(provider.secure_random.fill(&mut bytes).is_ok() && bytes != [0; 32]);
            assert!(provider.cipher_suites.len() > 3);
        }
    }
}
