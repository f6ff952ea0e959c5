// Go's net/http as an uploader: HTTP/2 over TLS, one Transport, one connection, as many goroutines as uploads in flight.
//
//	go_client [-concurrency 50] [-cacert ca.pem] FOLDER URL
//
// URL ends in / (the relative path is appended) or holds {path}. The last line on stdout is the count as JSON, as that
// of the other rivals (bench/rivals/tree.py). The standard library only: it is built without a network.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// file is one file to upload: the path to open and the URL to send it to.
type file struct{ path, url string }

// count is what the client did; Octets are those of complete, successful uploads.
type count struct {
	mutex       sync.Mutex
	Files       int               `json:"files"`
	OK          int               `json:"ok"`
	Octets      int64             `json:"octets"`
	Statuses    map[string]int    `json:"statuses"`
	Connections int32             `json:"connections"`
	Versions    map[string]string `json:"versions"`
}

func (c *count) add(status int, size int64) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.Files++
	c.Statuses[strconv.Itoa(status)]++
	if status >= 200 && status < 300 {
		c.OK++
		c.Octets += size
	}
}

// quote percent-encodes a relative path as Python's urllib.parse.quote does; url.PathEscape leaves more as it is.
func quote(path string) string {
	const hex = "0123456789ABCDEF"
	var quoted strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			quoted.WriteByte(c)
		} else {
			quoted.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return quoted.String()
}

// walk sends every regular file below folder to found, and closes it.
func walk(folder, template string, found chan<- file) error {
	defer close(found)
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		relative, err := filepath.Rel(folder, path)
		if err == nil {
			found <- file{path, strings.Replace(template, "{path}", quote(relative), 1)}
		}
		return err
	})
}

// upload sends one file and returns its size and the response's status, 0 when there was none.
func upload(ctx context.Context, client *http.Client, one file) (int, int64, error) {
	body, err := os.Open(one.path)
	if err != nil {
		return 0, 0, err
	}
	defer body.Close()
	info, err := body.Stat()
	if err != nil {
		return 0, 0, err
	}
	size := info.Size()
	var reader io.Reader = body
	if size == 0 {
		reader = http.NoBody // a length of 0 beside a body means that the length is unknown
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, one.url, reader)
	if err != nil {
		return 0, size, err
	}
	request.ContentLength = size
	request.Header.Set("Content-Type", "application/octet-stream")
	response, err := client.Do(request)
	if err != nil {
		return 0, size, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, size, err
	}
	if response.ProtoMajor != 2 {
		return 0, size, fmt.Errorf("the server answered by %s", response.Proto)
	}
	return response.StatusCode, size, nil
}

// newClient returns a client that speaks HTTP/2 over TLS, and counts its connections in connections.
func newClient(cacert string, connections *int32) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	if cacert != "" {
		pem, err := os.ReadFile(cacert)
		if err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: holds no certificate", cacert)
		}
	}
	var dialer net.Dialer
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			atomic.AddInt32(connections, 1)
			return dialer.DialContext(ctx, network, address)
		},
	}}, nil
}

// run uploads all that is found. The first upload has the connection made; the others wait for that, for Go would
// otherwise dial once for each of them.
func run(client *http.Client, found <-chan file, concurrency int, done *count) {
	work := func(ctx context.Context, one file) {
		status, size, err := upload(ctx, client, one)
		if err != nil {
			fmt.Fprintln(os.Stderr, one.path, err)
		}
		done.add(status, size)
	}
	connected, first := make(chan struct{}), sync.Once{}
	release := func() { first.Do(func() { close(connected) }) }
	trace := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { release() },
	})
	var workers sync.WaitGroup
	for number := 0; number < concurrency; number++ {
		workers.Add(1)
		go func(number int) {
			defer workers.Done()
			if number == 0 {
				if one, more := <-found; more {
					work(trace, one)
				}
				release()
			}
			<-connected
			for one := range found {
				work(context.Background(), one)
			}
		}(number)
	}
	workers.Wait()
}

func main() {
	concurrency := flag.Int("concurrency", 50, "uploads in flight")
	cacert := flag.String("cacert", "", "certificate authority to trust, PEM")
	flag.Parse()
	folder, template := flag.Arg(0), flag.Arg(1)
	if strings.HasSuffix(template, "/") {
		template += "{path}"
	}
	parsed, err := url.Parse(template)
	if flag.NArg() != 2 || err != nil || parsed.Scheme != "https" || !strings.Contains(template, "{path}") {
		fmt.Fprintln(os.Stderr, "usage: go_client [-concurrency N] [-cacert FILE] FOLDER URL (https, / at its end or {path})")
		os.Exit(2)
	}
	done := &count{Statuses: map[string]int{}, Versions: map[string]string{"go": runtime.Version()}}
	client, err := newClient(*cacert, &done.Connections)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	found := make(chan file, *concurrency)
	walked := make(chan error, 1)
	go func() { walked <- walk(folder, template, found) }()
	run(client, found, *concurrency, done)
	if err := <-walked; err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
		os.Exit(1)
	}
}
