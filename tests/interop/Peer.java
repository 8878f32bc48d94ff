// java Peer.java client PORT CA_FILE NAME PROTOCOLS TIMES [CERTIFICATE KEY] < REQUEST
// java Peer.java server VERSION CERTIFICATE KEY PROTOCOLS [CA_FILE]

import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.cert.Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import javax.net.ssl.*;

class Peer {
    public static void main(String[] words) throws Exception {
        String[] rest = Arrays.copyOfRange(words, 1, words.length);
        if (words[0].equals("client")) client(rest);
        else server(rest);
    }

    static void client(String[] words) throws Exception {
        byte[] request = System.in.readAllBytes();
        int port = Integer.parseInt(words[0]);
        SSLContext context = context(words[1], words.length > 5 ? words[5] : null, words.length > 5 ? words[6] : null);
        for (int times = Integer.parseInt(words[4]); times > 0; times--) {
            Socket tcp = new Socket("127.0.0.1", port);
            try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(tcp, words[2], port, true)) {
                SSLParameters parameters = socket.getSSLParameters();
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                if (!words[3].isEmpty()) parameters.setApplicationProtocols(words[3].split(","));
                socket.setSSLParameters(parameters);
                socket.startHandshake();
                socket.getOutputStream().write(request);
                echo(socket.getInputStream(), request);
                tell(socket, "verified", peer(socket) != null);
            } catch (SSLException error) {
                say("refused", quoted(error.getMessage()));
                System.exit(1);
            }
        }
    }

    /** Prints what comes, up to the end of what was sent. */
    static void echo(InputStream input, byte[] request) throws IOException {
        ByteArrayOutputStream received = new ByteArrayOutputStream();
        String end = new String(request, request.length - 16, 16);
        byte[] chunk = new byte[65536];
        for (int length; !received.toString().endsWith(end) && (length = input.read(chunk)) > 0; )
            received.write(chunk, 0, length);
        System.out.write(received.toByteArray());
        System.out.flush();
    }

    static void server(String[] words) throws Exception {
        SSLContext context = context(words.length > 4 ? words[4] : null, words[1], words[2]);
        SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
            .createServerSocket(0, 5, InetAddress.getByName("127.0.0.1"));
        SSLParameters parameters = listener.getSSLParameters();
        parameters.setProtocols(new String[] {words[0]});
        if (!words[3].isEmpty()) parameters.setApplicationProtocols(words[3].split(","));
        parameters.setNeedClientAuth(words.length > 4);
        listener.setSSLParameters(parameters);
        say("port", listener.getLocalPort());
        while (true) {
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                socket.startHandshake();
                tell(socket, "client", words.length > 4 ? peer(socket) : null);
                socket.getInputStream().transferTo(socket.getOutputStream());
                say("closed", true);
            } catch (IOException error) {
                say("refused", quoted(error.getMessage()));
            }
        }
    }

    static SSLContext context(String trusted, String certificate, String key) throws Exception {
        KeyStore anchors = KeyStore.getInstance("PKCS12"), own = KeyStore.getInstance("PKCS12");
        anchors.load(null, null);
        own.load(null, null);
        if (trusted != null) anchors.setCertificateEntry("ca", certificate(trusted));
        if (certificate != null) {
            String pem = Files.readString(Path.of(key)).replaceAll("-----.*?-----|\\s", "");
            PrivateKey ec = KeyFactory.getInstance("EC")
                .generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
            own.setKeyEntry("own", ec, new char[0], new Certificate[] {certificate(certificate)});
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(anchors);
        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(own, new char[0]);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trusted == null ? null : trust.getTrustManagers(), null);
        return context;
    }

    static X509Certificate certificate(String file) throws Exception {
        try (InputStream pem = new FileInputStream(file)) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(pem);
        }
    }

    /** The name in the certificate. Throws if it is not verified. */
    static String peer(SSLSocket socket) throws SSLException {
        return quoted(socket.getSession().getPeerPrincipal().getName().substring("CN=".length()));
    }

    static void tell(SSLSocket socket, String what, Object value) {
        String protocol = socket.getApplicationProtocol();
        System.err.printf("{\"version\":%s,\"alpn\":%s,\"%s\":%s}%n", quoted(socket.getSession().getProtocol()),
            protocol.isEmpty() ? null : quoted(protocol), what, value);
    }

    static void say(String what, Object value) {
        System.err.printf("{\"%s\":%s}%n", what, value);
    }

    static String quoted(String text) {
        return "\"" + text + "\"";
    }
}
