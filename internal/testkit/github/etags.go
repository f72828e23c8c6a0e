package github

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
)

// unchanged marks what a request reads, and answers one that has it already with the mark alone, which the primary limit does not count. As GitHub's
// marks do, it changes with the token.
func (c *call) unchanged(a answer) answer {
	if c.request.Method != http.MethodGet || a.status != http.StatusOK {
		return a
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	if a.header.Get("Etag") == "" {
		sum := sha256.New()
		fmt.Fprintln(sum, c.request.Header.Get("Authorization"), c.request.Header.Get("Accept"))
		sum.Write(a.text())
		a.header.Set("Etag", fmt.Sprintf(`W/"%x"`, sum.Sum(nil)))
	}
	has := strings.TrimPrefix(c.request.Header.Get("If-None-Match"), "W/")
	if has == "" || has != strings.TrimPrefix(a.header.Get("Etag"), "W/") {
		return a
	}
	if c.account != nil {
		c.account.spent.requests--
	}
	return answer{status: http.StatusNotModified, header: a.header}
}
