// Go: server CERTIFICATE KEY BLOCK. A goroutine for each connection.
package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"strconv"
)

func main() {
	pair, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		panic(err)
	}
	size, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	handlers := map[string]func(net.Conn){
		"echo": func(conn net.Conn) {
			buffer := make([]byte, 4096)
			for {
				count, err := conn.Read(buffer)
				if err != nil {
					return
				}
				if _, err = conn.Write(buffer[:count]); err != nil {
					return
				}
			}
		},
		"upload": func(conn net.Conn) {
			buffer := make([]byte, size)
			for {
				if _, err := conn.Read(buffer); err != nil {
					return
				}
			}
		},
		"download": func(conn net.Conn) {
			block := make([]byte, size)
			for {
				if _, err := conn.Write(block); err != nil {
					return
				}
			}
		},
	}
	ports := map[string]int{}
	for name, handle := range handlers {
		handle := handle
		listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			panic(err)
		}
		ports[name] = listener.Addr().(*net.TCPAddr).Port
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					panic(err)
				}
				go func() {
					defer conn.Close()
					handle(conn)
				}()
			}
		}()
	}
	json.NewEncoder(os.Stdout).Encode(ports)
	io.Copy(io.Discard, os.Stdin)
}
