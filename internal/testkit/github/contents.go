package github

import (
	"encoding/base64"
	"maps"
	"net/http"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
)

// What GitHub shows of contents.
const (
	maxFolder  = 1000        // entries; the rest is left out without a word
	maxContent = 1 << 20     // bytes; of larger files there is no content
	maxRaw     = 100_000_000 // bytes
)

func getContents(c *call) answer {
	r, refused := c.repository("read", "contents")
	if refused != nil {
		return *refused
	}
	ref := c.request.URL.Query().Get("ref")
	if ref == "" {
		ref = "main"
	}
	tree := r.tree(ref)
	if tree == nil {
		return refuse(http.StatusNotFound, "No commit found for the ref "+ref)
	}
	at := strings.Trim(path.Clean("/"+c.vars["path"]), "/")
	if folder, err := tree.Tree(at); err == nil || at == "" {
		if at == "" {
			folder = tree
		}
		shown := []object{}
		for _, e := range folder.Entries[:min(len(folder.Entries), maxFolder)] {
			shown = append(shown, c.g.content(r, path.Join(at, e.Name), ref, e, folder))
		}
		return done(http.StatusOK, shown)
	}
	e, err := tree.FindEntry(at)
	if err != nil {
		return notFound()
	}
	o := c.g.content(r, at, ref, *e, tree)
	file, err := tree.File(at)
	if err != nil {
		return done(http.StatusOK, o) // a submodule
	}
	if file.Size > maxRaw {
		return invalidField("Blob", "data", "This API returns blobs up to 100 MB in size.")
	}
	text, err := file.Contents()
	if err != nil {
		return notFound()
	}
	switch {
	case strings.Contains(c.request.Header.Get("Accept"), ".raw"):
		return answer{status: http.StatusOK, body: verbatim(text)}
	case e.Mode == filemode.Symlink:
		o["target"] = text
	case file.Size > maxContent:
		o["encoding"], o["content"] = "none", ""
	default:
		o["encoding"], o["content"] = "base64", base64.StdEncoding.EncodeToString([]byte(text))
	}
	return done(http.StatusOK, o)
}

func (g *GitHub) content(r *repository, at, ref string, e gitobject.TreeEntry, in *gitobject.Tree) object {
	kind := map[filemode.FileMode]string{filemode.Dir: "dir", filemode.Symlink: "symlink", filemode.Submodule: "submodule"}[e.Mode]
	if kind == "" {
		kind = "file"
	}
	size, _ := r.objects().EncodedObjectSize(e.Hash)
	if kind == "dir" || kind == "submodule" {
		size = 0
	}
	url := g.address(r, "/contents/"+at+"?ref="+ref)
	o := object{"type": kind, "name": path.Base(at), "path": at, "sha": e.Hash.String(), "size": size, "url": url, "html_url": g.page(r, "/blob/"+ref+"/"+at),
		"git_url": g.address(r, "/git/blobs/"+e.Hash.String()), "download_url": nil, "_links": object{"self": url, "git": nil, "html": nil}}
	if kind == "submodule" {
		maps.Copy(o, object{"submodule_git_url": g.page(r, "")})
	}
	return o
}
