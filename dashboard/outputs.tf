output "dashboard_url" {
  description = "Address of the dashboard, for a browser that is logged in to Datadog."
  value       = "https://${contains(["datadoghq.com", "datadoghq.eu", "ddog-gov.com"], local.ddg_site) ? "app." : ""}${local.ddg_site}${datadog_dashboard_json.stats.url}"
}

output "monitor_ids" {
  description = "Number of each monitor. Datadog shows it at /monitors/NUMBER."
  value       = { for name, monitor in datadog_monitor.metric : name => monitor.id }
}
