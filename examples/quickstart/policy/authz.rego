# Who may call what, by SPIFFE ID. Nothing passes unless a rule in data.json lists the peer, the method and the path.
package envoy.authz

default allow := {"allowed": false, "reason": "no rule allows this peer, method and path"}

allow := {"allowed": true, "reason": "allowed by rule"} if {
	some rule in data.rules
	input.spiffe.source.id in rule.peers
	input.attributes.request.http.method in rule.methods
	some pattern in rule.paths
	glob.match(pattern, ["/"], path)
}

path := concat("", ["/", concat("/", input.parsed_path)])
