package github

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// hook is where what happens is delivered to.
type hook struct {
	address, secret string
	client          *http.Client
}

// delivery is one try to deliver something.
type delivery struct {
	id           int64
	guid         string
	event        string
	action       string
	body         []byte
	at           time.Time
	took         time.Duration
	code         int
	redelivery   bool
	installation any
	repository   any
}

// deliveriesKept is how long a delivery can be listed and sent again.
const deliveriesKept = 3 * 24 * time.Hour

// Hook makes what happens to an App be delivered to an address.
func (g *GitHub) Hook(app int64, address, secret string, client *http.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.apps[app].hook = hook{address, secret, client}
}

// Emit delivers an event of a repository to an App, with what else it says, and returns the delivery's GUID and the status of the answer: 0, none came.
func (g *GitHub) Emit(app int64, event, repository string, more map[string]any) (guid string, status int) {
	g.mu.Lock()
	d := &delivery{guid: fmt.Sprintf("guid-%d", g.id()), event: event}
	a := g.apps[app]
	for _, i := range g.installations {
		if i.app == a {
			d.installation = i.id
		}
	}
	g.say(d, g.find(repository), g.person("octocat"), more)
	g.mu.Unlock()
	return d.guid, g.meet(a, d)
}

// say writes the body of a delivery: what each event says, and more.
func (g *GitHub) say(d *delivery, r *repository, by *account, more map[string]any) {
	said := object{"sender": by.user(g.URL)}
	if id, is := d.installation.(int64); is {
		said["installation"] = object{"id": id, "node_id": fmt.Sprintf("IN_%d", id), "account": object{"login": g.installations[id].owner}}
	}
	if r != nil {
		d.repository, said["repository"] = r.id, g.repository(r)
	}
	maps.Copy(said, more)
	d.action, _ = said["action"].(string)
	text, err := json.Marshal(said)
	if err != nil {
		panic(err) // a test's own mistake
	}
	d.body = text
}

// deliver tries once, and keeps what came of it.
func (g *GitHub) deliver(a *app, d *delivery) (status int) {
	g.mu.Lock()
	d.at = g.now()
	h := a.hook
	g.mu.Unlock()
	if h.client != nil {
		status = h.send(d, a.id)
	}
	g.record(a, d, status)
	return status
}

// record keeps what came of a delivery.
func (g *GitHub) record(a *app, d *delivery, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d.at.IsZero() {
		d.at = g.now()
	}
	d.id, d.took, d.code = g.id(), g.now().Sub(d.at), status
	if status == 0 {
		d.code = http.StatusBadGateway // as GitHub lists what nobody took
	}
	a.deliveries = append(a.deliveries, d)
}

func (h hook) send(d *delivery, app int64) (status int) {
	request, err := http.NewRequest(http.MethodPost, h.address, bytes.NewReader(d.body))
	if err != nil {
		return 0
	}
	sum := hmac.New(sha256.New, []byte(h.secret))
	sum.Write(d.body)
	for key, value := range map[string]string{"Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/test", "X-GitHub-Event": d.event, "X-GitHub-Delivery": d.guid,
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(sum.Sum(nil)), "X-GitHub-Hook-Installation-Target-Type": "integration",
		"X-GitHub-Hook-Installation-Target-ID": strconv.FormatInt(app, 10)} {
		request.Header.Set(key, value)
	}
	response, err := h.client.Do(request)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// Deliveries are the tries to deliver something, by its GUID: the statuses of the answers, oldest first.
func (g *GitHub) Deliveries(app int64, guid string) (statuses []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.apps[app].deliveries {
		if d.guid == guid {
			statuses = append(statuses, d.code)
		}
	}
	return statuses
}

func listDeliveries(c *call) answer {
	query := c.request.URL.Query()
	size := 30
	if n, err := strconv.Atoi(query.Get("per_page")); err == nil && n > 0 {
		size = min(n, 100)
	}
	before, _ := strconv.ParseInt(query.Get("cursor"), 10, 64) // none: the newest
	shown, header := []object{}, http.Header{}
	for _, d := range slices.Backward(c.app.deliveries) {
		switch {
		case before != 0 && d.id >= before, c.g.now().Sub(d.at) > deliveriesKept:
			continue
		case len(shown) == size:
			query.Set("cursor", strconv.FormatInt(shown[size-1]["id"].(int64), 10))
			header.Set("Link", fmt.Sprintf(`<%sapp/hook/deliveries?%s>; rel="next"`, c.g.URL, query.Encode()))
			return answer{status: http.StatusOK, header: header, body: shown}
		}
		shown = append(shown, d.shown())
	}
	return answer{status: http.StatusOK, header: header, body: shown}
}

func (d *delivery) shown() object {
	return object{"id": d.id, "guid": d.guid, "delivered_at": timestamp(d.at), "redelivery": d.redelivery, "duration": d.took.Seconds(), "status": http.StatusText(d.code),
		"status_code": d.code, "event": d.event, "action": nullable(d.action), "installation_id": d.installation, "repository_id": d.repository}
}

func getDelivery(c *call) answer {
	for _, d := range c.app.deliveries {
		if d.id == c.number("delivery_id") {
			o := d.shown()
			maps.Copy(o, object{"request": object{"headers": nil, "payload": json.RawMessage(d.body)}, "response": object{"headers": nil, "payload": nil}})
			return done(http.StatusOK, o)
		}
	}
	return notFound()
}

// redeliver answers before it delivers, as GitHub does.
func redeliver(c *call) answer {
	id := c.number("delivery_id")
	for _, d := range c.app.deliveries {
		if d.id == id && c.g.now().Sub(d.at) <= deliveriesKept {
			again := *d
			again.redelivery = true
			c.g.sending.Go(func() { c.g.deliver(c.app, &again) })
			return answer{status: http.StatusAccepted, body: object{}}
		}
	}
	return refuse(http.StatusNotFound, "Not Found")
}
