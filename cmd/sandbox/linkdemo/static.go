package linkdemo

import (
	"bytes"
	"html/template"
	"net/http"
)

func read(name string) []byte {
	content, err := web.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return content
}

func file(contentType string, content []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(content)
	})
}

func render(w http.ResponseWriter, page *template.Template, data any) {
	var out bytes.Buffer
	if err := page.Execute(&out, data); err != nil {
		http.Error(w, "the page can't be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(out.Bytes())
}
